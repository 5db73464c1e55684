"""A layer that is called again with the same arrays, for tests of replays."""

from __future__ import annotations

from kernel_cases import Case, compare, get

from fastrnn import kernels

STEPS = 9
CALLS = 4


class Layer:
    """A layer with arrays of its own, whose x and gradient of the output can be replaced."""

    def __init__(
        self,
        mode,
        directions=1,
        dtype="float32",
        lengths=None,
        steps=STEPS,
        seed=0,
        layers=1,
    ):
        options = {"device": "cuda", "dtype": dtype, "algorithm": "stepwise", "lengths": lengths}
        options.update(layers=layers)
        self.case = Case(mode, steps, 3, 4, 5, directions, seed, **options)
        self.arguments = self.case.arguments()
        names = ("d_output", "d_h_n", "d_c_n")
        self.gradients_of_results = [self.case.put(getattr(self.case, name)) for name in names]
        self.fresh()

    def fresh(self):
        """Have the next call make its results anew, where they may lie elsewhere."""
        self.result = self.gradients = None

    def replace(self, seed):
        """Write other numbers to x and to the gradient of the output."""
        for name, array in (("x", self.arguments["x"]), ("d_output", self.gradients_of_results[0])):
            setattr(self.case, name, fill(array, getattr(self.case, name), seed))

    def run(self, stream=None):
        self.result = kernels.forward(
            **self.arguments, reserve=True, out=self.result, stream=stream
        )
        self.gradients = kernels.backward(
            self.result.reserve, *self.gradients_of_results, out=self.gradients, stream=stream
        )

    def numbers(self):
        """Return the results and gradients on the host."""
        arrays = [*self.result[:3], *self.gradients[:3], *self.gradients.weights]
        return [get(array).copy() for array in arrays if array is not None]

    def check(self):
        """Fail unless the last call's numbers are the reference's."""
        found = self.gradients._replace(
            **{name: get(getattr(self.gradients, name)) for name in ("x", "h_0", "c_0")},
            weights=[get(w) for w in self.gradients.weights],
        )
        names = ("output", "h_n", "c_n")
        result = self.result._replace(**{name: get(getattr(self.result, name)) for name in names})
        compare(self.case, result, found)


def fill(array, like, seed):
    """Have another layer write to an array [T, N, F], and return what it wrote."""
    steps, rows, features = like.shape
    writer = Case("rnn_tanh", steps, rows, 2, features, 1, seed, "cuda", array.dtype)
    arguments = writer.arguments()
    out = kernels.forward(**arguments)._replace(output=array)
    return get(kernels.forward(**arguments, out=out).output)
