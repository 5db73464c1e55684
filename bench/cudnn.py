"""The baseline: cuDNN's own recurrent layers, called through its C interface.

    memory = TorchMemory()
    with CudnnLayer(case, Algorithm.STANDARD, memory) as layer:
        layer.set_weights(weights)                       # in fastrnn's order
        output, h_n, c_n = layer.forward(x, h_0, c_0)
        d_x, d_h_0, d_c_0 = layer.backward_data(d_output, d_h_n, d_c_n)
        layer.backward_weights()
        gradients = layer.weight_gradients()             # in fastrnn's order

A case has the attributes of `cases.Case`. Shapes: T steps, N rows, I inputs, H hidden units, G
gates, D directions, L layers; weights are, for each layer and direction, i2h_weight [G*H, I or
D*H], h2h_weight [G*H, H], i2h_bias [G*H] and h2h_bias [G*H], the gates of the LSTM being i, f, g,
o, and of the GRU r, z, n.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from bench import cudnn_api as api
from bench.buffers import Memory, Shape
from bench.cudnn_api import Algorithm, Unsupported

__all__ = ["Algorithm", "CudnnLayer", "Unsupported"]

CELLS = {
    "lstm": api.CUDNN_LSTM,
    "gru": api.CUDNN_GRU,
    "rnn_tanh": api.CUDNN_RNN_TANH,
    "rnn_relu": api.CUDNN_RNN_RELU,
}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
DTYPES = {
    "float32": api.CUDNN_DATA_FLOAT,
    "float16": api.CUDNN_DATA_HALF,
    "bfloat16": api.CUDNN_DATA_BFLOAT16,
}


class Results(NamedTuple):
    """Buffers that belong to the layer, and are written by each `CudnnLayer.forward`."""

    output: Any  # [T, N, D*H], zero past a row's length
    h_n: Any  # [L*D, N, H]
    c_n: Any  # [L*D, N, H], None unless LSTM


class Gradients(NamedTuple):
    """Buffers that belong to the layer, and are written by each `CudnnLayer.backward_data`."""

    x: Any  # [T, N, I], of no meaning past a row's length
    h_0: Any
    c_0: Any


class _Inputs(NamedTuple):
    """Addresses of what a forward pass read, which its backward passes read again."""

    x: int
    h_0: Optional[int]
    c_0: Optional[int]
    kept: Tuple[Any, ...]  # the buffers themselves, so that they live as long


class _Piece(NamedTuple):
    """One gate's part of a parameter, in cuDNN's weight space."""

    offset: int  # in bytes
    shape: Shape


class CudnnLayer:
    """A stack of recurrent layers, run by cuDNN on the current stream of `memory`.

    Parameters
    ----------
    case
        Cell, sizes, type, whether it is for training, and ragged lengths: see `cases.Case`.
    algorithm
        Which of cuDNN's ways to run it.
    memory
        Where buffers are.
    packed
        Whether to tell cuDNN that no row is padded, which spares it looking. The memory of rows
        of the same length is the same either way.
    library
        By default what `cudnn_api.load` finds.

    Raises
    ------
    Unsupported
        When cuDNN has no such algorithm for such a layer, here or in a pass.
    CudnnError
        When a call fails for any other reason.
    ValueError
        When an argument is wrong.
    """

    def __init__(
        self,
        case: Any,
        algorithm: Algorithm,
        memory: Memory,
        *,
        packed: bool = False,
        library: Optional[api.Cudnn] = None,
    ):
        if packed and case.ragged:
            raise ValueError("packed is True for a case with ragged lengths, expected False")
        self.case = case
        self.algorithm = Algorithm(algorithm)
        self.cudnn = library or api.load()
        self._memory = memory
        self._packed = packed
        self._directions = 2 if case.bidirectional else 1
        states = case.layers * self._directions
        self._x_shape = (case.steps, case.batch, case.inputs)
        self._output_shape = (case.steps, case.batch, self._directions * case.hidden)
        self._state_shape = (states, case.batch, case.hidden)
        self._inputs: Optional[_Inputs] = None
        self._stage = "made"
        with ExitStack() as stack:
            self._create(stack)
            self._allocate()
            self._stack = stack.pop_all()

    def __enter__(self) -> CudnnLayer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Destroy what cuDNN holds. The buffers stay."""
        self._stack.close()

    @property
    def bytes(self) -> int:
        """Memory that cuDNN asks for, besides inputs, results and their gradients."""
        spaces = self._weights, self._d_weights, self._workspace, self._reserve
        return sum(self._memory.layout(space).shape[0] for space in spaces)

    def _create(self, stack: ExitStack) -> None:
        """Set the handle and all descriptors up."""
        case, library = self.case, self.cudnn
        small = self.algorithm == Algorithm.PERSIST_STATIC_SMALL_H
        if small and library.version < api.SMALL_H_VERSION:
            raise Unsupported("cudnnSetRNNDescriptor_v8", 0, f"not in version {library.version}")
        self._handle = stack.enter_context(library.created())
        self._dtype = DTYPES[case.dtype]
        dropout = stack.enter_context(library.created("Dropout"))
        library.call("cudnnSetDropoutDescriptor", dropout, self._handle, 0.0, None, 0, 0)
        self._rnn = stack.enter_context(library.created("RNN"))
        library.call(
            "cudnnSetRNNDescriptor_v8",
            self._rnn,
            self.algorithm,
            CELLS[case.cell],
            api.CUDNN_RNN_DOUBLE_BIAS,
            api.CUDNN_BIDIRECTIONAL if case.bidirectional else api.CUDNN_UNIDIRECTIONAL,
            api.CUDNN_LINEAR_INPUT,
            self._dtype,
            api.CUDNN_DATA_FLOAT,
            self._math_type(),
            case.inputs,
            case.hidden,
            case.hidden,  # the size of a projection, which this turns off
            case.layers,
            dropout,
            api.CUDNN_RNN_PADDED_IO_DISABLED if self._packed else api.CUDNN_RNN_PADDED_IO_ENABLED,
        )
        if self.algorithm == Algorithm.PERSIST_DYNAMIC:
            library.call("cudnnBuildRNNDynamic", self._handle, self._rnn, case.batch)
        lengths = case.lengths() if case.ragged else np.full(case.batch, case.steps)
        self._lengths = np.ascontiguousarray(lengths, np.int32)
        self._x_data = self._data_descriptor(stack, case.inputs)
        self._output_data = self._data_descriptor(stack, self._output_shape[2])
        self._states = stack.enter_context(library.created("Tensor"))
        library.set_tensor(self._states, self._dtype, self._state_shape)
        self._matrix = stack.enter_context(library.created("Tensor"))
        self._bias = stack.enter_context(library.created("Tensor"))

    def _math_type(self) -> int:
        """How float32 is multiplied; 16-bit types have tensor cores in any case.

        CUDNN_DEFAULT_MATH permits TF32. CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION would round weights
        and states to float16 instead, which is another computation.
        """
        if self.case.dtype != "float32":
            return api.CUDNN_TENSOR_OP_MATH
        return api.CUDNN_DEFAULT_MATH if self.case.tf32 else api.CUDNN_FMA_MATH

    def _data_descriptor(self, stack: ExitStack, size: int) -> ctypes.c_void_p:
        """Describe [T, N, size], padded with zeros."""
        descriptor = stack.enter_context(self.cudnn.created("RNNData"))
        layout = api.CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED
        if self._packed:
            layout = api.CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED
        self.cudnn.call(
            "cudnnSetRNNDataDescriptor",
            descriptor,
            self._dtype,
            layout,
            self.case.steps,
            self.case.batch,
            size,
            self._lengths.ctypes.data_as(ctypes.POINTER(ctypes.c_int)),
            ctypes.byref(ctypes.c_float(0.0)),  # a zero of any type
        )
        return descriptor

    def _allocate(self) -> None:
        """Allocate what cuDNN needs for this layer, and its results."""
        case, memory = self.case, self._memory
        self._mode = api.CUDNN_FWD_MODE_TRAINING if case.train else api.CUDNN_FWD_MODE_INFERENCE
        workspace, reserve, weights = (ctypes.c_size_t() for _ in range(3))
        layer, sizes = (self._handle, self._rnn), (ctypes.byref(workspace), ctypes.byref(reserve))
        self.cudnn.call("cudnnGetRNNTempSpaceSizes", *layer, self._mode, self._x_data, *sizes)
        self.cudnn.call("cudnnGetRNNWeightSpaceSize", *layer, ctypes.byref(weights))
        self._weight_bytes = weights.value
        self._workspace = memory.zeros((workspace.value,), "uint8")
        self._reserve = memory.zeros((reserve.value if case.train else 0,), "uint8")
        self._weights = memory.zeros((weights.value,), "uint8")
        self._d_weights = memory.zeros((weights.value if case.train else 0,), "uint8")
        self._device_lengths = memory.put(self._lengths, "int32")
        self._results = Results(memory.zeros(self._output_shape, case.dtype), *self._new_states())
        if case.train:
            d_x = memory.zeros(self._x_shape, case.dtype)
            self._gradients = Gradients(d_x, *self._new_states())
        self._places = [
            self._place(layer, parameter)
            for layer in range(self._state_shape[0])
            for parameter in range(4)
        ]

    def _new_states(self) -> Tuple[Any, Any]:
        h = self._memory.zeros(self._state_shape, self.case.dtype)
        if self.case.cell != "lstm":
            return h, None
        return h, self._memory.zeros(self._state_shape, self.case.dtype)

    def _place(self, layer: int, parameter: int) -> List[_Piece]:
        """Where the gates of one of a pseudo-layer's four parameters are in the weight space.

        A pseudo-layer is one direction of one layer, counted as fastrnn does. Each has 2*G linear
        layers, a matrix and a bias: first those of the input, then the recurrent ones, both in
        fastrnn's order of gates.
        """
        gates, hidden = GATES[self.case.cell], self.case.hidden
        recurrent, is_bias = parameter % 2, parameter >= 2
        inputs = self.case.inputs if layer < self._directions else self._output_shape[2]
        columns = 1 if is_bias else hidden if recurrent else inputs
        base = self._memory.layout(self._weights).address
        pieces = []
        for gate in range(gates):
            matrix, bias = ctypes.c_void_p(), ctypes.c_void_p()
            self.cudnn.call(
                "cudnnGetRNNWeightParams",
                self._handle,
                self._rnn,
                layer,
                self._weight_bytes,
                base,
                gates * recurrent + gate,
                self._matrix,
                ctypes.byref(matrix),
                self._bias,
                ctypes.byref(bias),
            )
            found = self.cudnn.get_tensor(self._bias if is_bias else self._matrix)
            wanted = api.Tensor(self._dtype, (1, hidden, columns), (hidden * columns, columns, 1))
            offset = (bias if is_bias else matrix).value
            if found != wanted or offset is None:
                raise RuntimeError(f"cudnnGetRNNWeightParams describes {found}, expected {wanted}")
            pieces.append(_Piece(offset - base, (hidden,) if is_bias else (hidden, columns)))
        return pieces

    def _pieces(self, space: Any) -> List[List[Any]]:
        """The buffers of each parameter's gates in a weight space."""
        dtype = self.case.dtype
        return [[self._memory.piece(space, *p, dtype) for p in place] for place in self._places]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Copy weights from the host, 4 * L * D of them in fastrnn's order."""
        targets = self._pieces(self._weights)
        if len(weights) != len(targets):
            raise ValueError(f"weights are {len(weights)} arrays, expected {len(targets)}")
        for k, (array, place) in enumerate(zip(weights, self._places)):
            shape = (len(place) * place[0].shape[0], *place[0].shape[1:])
            if np.shape(array) != shape:
                raise ValueError(f"weights[{k}] has shape {np.shape(array)}, expected {shape}")
            for target, gate in zip(targets[k], np.split(array, len(place))):
                self._memory.write(target, gate)

    def weight_gradients(self) -> List[np.ndarray]:
        """Copy the gradients of the weights to the host, as `set_weights` takes weights."""
        self._expect("weight_gradients", "backward_weights")
        pieces = self._pieces(self._d_weights)
        return [np.concatenate([self._memory.read(p) for p in gates]) for gates in pieces]

    def forward(self, x: Any, h_0: Any = None, c_0: Any = None) -> Results:
        """Run all steps.

        Parameters
        ----------
        x
            Buffer [T, N, I] of the case's type.
        h_0, c_0
            Buffers [L*D, N, H], zero by default.
        """
        self._inputs = _Inputs(
            self._memory.address("x", x, self._x_shape, self.case.dtype),
            self._state_address("h_0", h_0),
            self._state_address("c_0", c_0),
            (x, h_0, c_0),
        )
        output, h_n, c_n = (self._own(buffer) for buffer in self._results)
        self._run(
            "cudnnRNNForward",
            self._mode,
            self._own(self._device_lengths),
            *(self._x_data, self._inputs.x),
            *(self._output_data, output),
            *(self._states, self._inputs.h_0, h_n),
            *(self._states, self._inputs.c_0, c_n),
            *(self._weight_bytes, self._own(self._weights)),
        )
        self._stage = "forward"
        return self._results

    def backward_data(self, d_output: Any, d_h_n: Any = None, d_c_n: Any = None) -> Gradients:
        """Run all steps backwards, once for each `forward`, and give the inputs' gradients.

        Parameters
        ----------
        d_output, d_h_n, d_c_n
            Gradients of what `forward` returned, in buffers like those; zero by default, except
            that of `output`.
        """
        inputs = self._expect("backward_data", "forward")
        output, d_x = self._own(self._results.output), self._own(self._gradients.x)
        d_h_0, d_c_0 = self._own(self._gradients.h_0), self._own(self._gradients.c_0)
        self._run(
            "cudnnRNNBackwardData_v8",
            self._own(self._device_lengths),
            *(self._output_data, output),
            self._memory.address("d_output", d_output, self._output_shape, self.case.dtype),
            *(self._x_data, d_x),
            *(self._states, inputs.h_0, self._state_address("d_h_n", d_h_n), d_h_0),
            *(self._states, inputs.c_0, self._state_address("d_c_n", d_c_n), d_c_0),
            *(self._weight_bytes, self._own(self._weights)),
        )
        self._stage = "backward_data"
        return self._gradients

    def backward_weights(self) -> None:
        """Compute the weights' gradients, once for each `backward_data`."""
        inputs = self._expect("backward_weights", "backward_data")
        # cuDNN only ever adds to them.
        self._memory.clear(self._d_weights)
        self._run(
            "cudnnRNNBackwardWeights_v8",
            api.CUDNN_WGRAD_MODE_ADD,
            self._own(self._device_lengths),
            *(self._x_data, inputs.x),
            *(self._states, inputs.h_0),
            *(self._output_data, self._own(self._results.output)),
            *(self._weight_bytes, self._own(self._d_weights)),
        )
        self._stage = "backward_weights"

    def _run(self, name: str, *arguments: Any) -> None:
        """Call one of the passes; workspace and reserve come last in each."""
        self.cudnn.call("cudnnSetStream", self._handle, self._memory.stream())
        spaces = [self._memory.layout(space) for space in (self._workspace, self._reserve)]
        sized = [part for space in spaces for part in (space.shape[0], space.address or None)]
        self.cudnn.call(name, self._handle, self._rnn, *arguments, *sized)

    def _expect(self, call: str, before: str) -> _Inputs:
        if not self.case.train:
            raise RuntimeError(f"{call} is called, but the case is not for training")
        if self._stage != before or self._inputs is None:
            raise RuntimeError(f"{call} is called after {self._stage}, expected {before} before it")
        return self._inputs

    def _own(self, buffer: Any) -> Optional[int]:
        return None if buffer is None else self._memory.layout(buffer).address

    def _state_address(self, name: str, buffer: Any) -> Optional[int]:
        if buffer is None:
            return None
        if name in ("c_0", "d_c_n") and self.case.cell != "lstm":
            raise ValueError(f"{name} is given, but {self.case.cell} has no cell state")
        return self._memory.address(name, buffer, self._state_shape, self.case.dtype)
