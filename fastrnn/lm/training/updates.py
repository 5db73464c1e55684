"""What becomes of the gradients: their sum over devices and workers, clipping, the update."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.distributed.workers import Workers
from fastrnn.lm.errors import InputError
from fastrnn.lm.training.checkpoint import Progress
from fastrnn.lm.training.scaling import LossScale
from fastrnn.lm.training.steps import global_norm, state_arrays
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


# A rate below this changes hardly anything, and does not decay. In a long training it would leave
# the range of float32, and MXNet's operators would refuse it.
_LEAST_RATE = 1e-8


def rate_of(settings: Settings, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1."""
    last = min(epoch, _last_decay(settings))
    return settings.rate * settings.decay ** max(0, last - settings.decay_after)


def _last_decay(settings: Settings) -> float:
    """The epoch in which the rate decays for the last time; infinite if it does not stop."""
    if settings.decay >= 1:
        return math.inf
    if settings.rate < _LEAST_RATE:
        return settings.decay_after
    if settings.decay == 0:
        return settings.decay_after + 1
    decays = math.log(_LEAST_RATE / settings.rate) / math.log(settings.decay)
    return settings.decay_after + math.floor(decays) + 1


class Updates:
    """Updates the parameters of one network.

    Parameters
    ----------
    parameters : dict of str to mxnet.gluon.Parameter
    settings : Settings
    contexts : sequence of mxnet.Context
        The devices that have the parameters.
    workers : Workers
    epoch, batches : int
        The epoch that comes next, and how many updates each worker makes in an epoch.

    Attributes
    ----------
    scale : LossScale
        What the gradients come multiplied by; 1 in float32.
    made : int
        How many updates were made.
    """

    def __init__(
        self,
        parameters: Dict[str, Any],
        settings: Settings,
        contexts: Sequence[Any],
        workers: Workers,
        epoch: int,
        batches: int,
    ) -> None:
        self._parameters = parameters
        self._settings = settings
        self._contexts = contexts
        self._workers = workers
        self._half = settings.dtype == "float16"
        self.scale = LossScale() if self._half else LossScale(1.0)
        self.made = 0
        # Gradients are clipped between their sum and the update, so the store that sums them must
        # not update; an asynchronous one makes no sum, and updates.
        self._trainer = mx.gluon.Trainer(
            list(parameters.values()),
            settings.optimizer,
            self._options(epoch, batches),
            kvstore=workers.store or ("device" if self._on_gpu else "local"),
            update_on_kvstore=workers.asynchronous,
        )
        if workers.apart:
            # A Trainer asks the store for the first worker's parameters and does not wait for them.
            # The sum of the first gradients, under the same keys, may then come in their place.
            self._trainer._init_kvstore()
            self._trainer._init_params()
            mx.nd.waitall()

    def _options(self, epoch: int, batches: int) -> Dict[str, Any]:
        options: Dict[str, Any] = {"learning_rate": rate_of(self._settings, epoch)}
        options["multi_precision"] = self._half  # keeps float32 copies of the parameters
        if self._workers.asynchronous:
            # The servers get the optimizer once. They count the updates of all workers.
            options["rescale_grad"] = 1 / self._own_rows
            first = max(epoch, self._settings.decay_after)
            last = min(self._settings.epochs, _last_decay(self._settings))
            ends = range(first - epoch + 1, int(last) - epoch + 1)
            steps = [end * batches * self._workers.count for end in ends]
            if steps and self._settings.decay != 1:
                options["lr_scheduler"] = mx.lr_scheduler.MultiFactorScheduler(
                    steps, self._settings.decay, options["learning_rate"]
                )
        return options

    @property
    def _own_rows(self) -> float:
        return self._settings.batch / self._workers.count

    @property
    def _on_gpu(self) -> bool:
        return self._contexts[0].device_type == "gpu"

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the epoch that begins; servers have theirs for all epochs."""
        if not self._workers.asynchronous:
            self._trainer.set_learning_rate(rate)

    def step(self, part: Callable[[str], ContextManager[Any]] = nullcontext) -> None:
        """Update the parameters; `part` encloses each part of the work."""
        rows, clip = self._settings.batch, self._settings.clip
        if self._workers.asynchronous:
            with part("clipping"):
                self._limit(clip * self._own_rows / len(self._contexts))
            with part("update"):
                self._trainer.step(1)
            self.made += 1
            return
        with part("clipping"):
            self._trainer.allreduce_grads()
            divisor = self._unscaled(rows) if self._half else self._clip(rows)
        if divisor is not None:
            with part("update"):
                self._trainer.update(divisor)
            self.made += 1

    def _unscaled(self, rows: float) -> Optional[float]:
        """Adjust the scale; returns what the update shall divide by, None if it is left out."""
        norm = float(global_norm(self._gradients(self._contexts[0])).asscalar())
        divisor = rows * self.scale.value
        self.scale.adjust(math.isfinite(norm))
        if not math.isfinite(norm):
            return None
        return max(norm / self._settings.clip, divisor) if self._settings.clip else divisor

    def _clip(self, rows: float) -> float:
        """Limit the gradients' global norm; returns what the update shall divide them by."""
        if not self._settings.clip:
            return rows
        if self._on_gpu:
            self._limit(self._settings.clip * rows)
            return rows
        # The update divides anyway, so gradients need no pass of their own. The divisor is a number
        # of the host: MXNet scales row-sparse arrays by an array only in a dense pass.
        norm = float(global_norm(self._gradients(self._contexts[0])).asscalar())
        return max(norm / self._settings.clip, rows)

    def _limit(self, norm: float) -> None:
        """Limit the global norm of each device's gradients; 0: no limit."""
        for context in self._contexts if norm else ():
            gradients = self._gradients(context)
            mx.gluon.utils.clip_global_norm(gradients, norm, check_isfinite=False)

    def _gradients(self, context: Any) -> List[Any]:
        return [parameter.grad(context) for parameter in self._parameters.values()]

    def state(self) -> Dict[str, List[np.ndarray]]:
        """The optimizer's state for each parameter; no entry where it keeps none, or not here."""
        # Not Trainer.save_states: it writes a pickle, and loading a pickle runs the code in it.
        # Resuming a checkpoint from an unknown source must be safe.
        states = self._trainer._updaters[0].states
        found = {}
        for index, name in enumerate(self._parameters):
            arrays = state_arrays(states.get(index))
            if arrays:
                found[name] = [array.asnumpy() for array in arrays]
        return found

    def restore(self, state: Dict[str, List[np.ndarray]], progress: Progress) -> None:
        """Go on from a state after some progress.

        Asynchronous workers begin with a new optimizer, and so does what follows them: there is no
        state in their checkpoints.
        """
        if self._half:
            self.scale = LossScale(*progress.scale)
        if self._workers.asynchronous or not (progress.updates and state):
            return
        optimizer = self._trainer.optimizer
        # The count of updates enters Adam's arithmetic.
        optimizer.begin_num_update = optimizer.num_update = progress.updates
        for updater, context in zip(self._trainer._updaters, self._contexts):
            for index, (name, parameter) in enumerate(self._parameters.items()):
                own = optimizer.create_state_multi_precision(index, parameter.data(context))
                arrays, values = state_arrays(own), state.get(name, [])
                got, wanted = ([a.shape for a in kept] for kept in (values, arrays))
                if got != wanted:
                    raise InputError(
                        f"optimizer: the checkpoint's state for {name} has the shapes {got}, "
                        f"wanted {wanted}"
                    )
                for array, value in zip(arrays, values):
                    array[:] = mx.nd.array(value, ctx=context, dtype=value.dtype)
                updater.states[index] = own
                updater.states_synced[index] = True
