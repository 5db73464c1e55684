"""cuDNN, called directly: each of its algorithms, and most in both layouts, on its own."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from bench.cases import ITEM_BYTES, Case
from bench.data import Data, Results, named
from bench.peers import cudnn_api as api
from bench.peers.base import Layer, Peer, TensorLayer, to_host
from bench.peers.cudnn_api import Algorithm, MissingLibraryError
from fastrnn.cell import GATES

ALGORITHMS = tuple(algorithm.name for algorithm in Algorithm)
# PERSIST_DYNAMIC compiles a kernel for each layer, which takes its time: once is enough.
PACKED = tuple(name for name in ALGORITHMS if name != "PERSIST_DYNAMIC")
GROUP = "cuDNN"

CELLS = {
    "lstm": api.CUDNN_LSTM,
    "gru": api.CUDNN_GRU,
    "rnn_tanh": api.CUDNN_RNN_TANH,
    "rnn_relu": api.CUDNN_RNN_RELU,
}
DTYPES = {
    "float32": api.CUDNN_DATA_FLOAT,
    "float16": api.CUDNN_DATA_HALF,
    "bfloat16": api.CUDNN_DATA_BFLOAT16,
}


class States(NamedTuple):
    """Tensors that belong to the layer and are written by each pass: results, or gradients."""

    sequence: Any  # the output [T, N, D*H], zero past a row's length; or of the input [T, N, I]
    h: Any  # [L*D, N, H]
    c: Any  # [L*D, N, H], None unless LSTM


class CudnnLayer(TensorLayer):
    """A stack of recurrent layers, run by cuDNN on PyTorch's current stream.

    T steps, N rows, I inputs, H hidden units, G gates, D directions, L layers.

    Parameters
    ----------
    packed
        Whether to tell cuDNN that no row is padded, which spares it looking. The memory of rows
        of the same length is the same either way.

    Raises
    ------
    UnsupportedError
        When cuDNN has no such algorithm for such a layer, here or in a pass.
    CudnnError
        When a call fails for any other reason.
    """

    def __init__(
        self,
        torch: Any,
        case: Case,
        data: Data,
        device: str,
        algorithm: Algorithm = Algorithm.STANDARD,
        packed: bool = False,
    ):
        super().__init__(torch, case, data, device)
        self._cudnn, self._algorithm, self._packed = api.load(), algorithm, packed
        self._state_shape = (case.layers * case.directions, case.batch, case.hidden)
        with ExitStack() as stack:
            self._describe(stack)
            self._allocate()
            self._parameters = [
                self._gates(layer, parameter)
                for layer in range(self._state_shape[0])
                for parameter in range(4)
            ]
            for array, gates in zip(data.weights, self._parameters):
                for gate, values in zip(gates, np.split(array, len(gates))):
                    self._at(self._weights, gate).copy_(self.put(values))
            self._stack = stack.pop_all()

    def run(self, number: int) -> None:
        self.forward(self.xs[number])
        if self.case.train:
            self.backward(self.d_outputs[number])

    def results(self) -> Results:
        output = to_host(self._results.sequence)
        if not self.case.train:
            return {"output": output}
        d_x = to_host(self._gradients.sequence)
        # cuDNN promises nothing of the gradient of padding.
        d_x[np.arange(self.case.steps)[:, np.newaxis] >= self.case.lengths()] = 0
        return named(output, d_x, self.weight_gradients())

    def close(self) -> None:
        """Destroy what cuDNN holds. The tensors stay."""
        self._stack.close()

    def _describe(self, stack: ExitStack) -> None:
        """Set the handle and all descriptors up."""
        case, library = self.case, self._cudnn
        small = self._algorithm == Algorithm.PERSIST_STATIC_SMALL_H
        if small and library.version < api.SMALL_H_VERSION:
            raise api.UnsupportedError("cudnnSetRNNDescriptor_v8", 0, f"not in {library.version}")
        self._handle = stack.enter_context(library.created())
        self._dtype = DTYPES[case.dtype]
        dropout = stack.enter_context(library.created("Dropout"))
        library.call("cudnnSetDropoutDescriptor", dropout, self._handle, 0.0, None, 0, 0)
        self._rnn = stack.enter_context(library.created("RNN"))
        library.call(
            "cudnnSetRNNDescriptor_v8",
            self._rnn,
            self._algorithm,
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
        if self._algorithm == Algorithm.PERSIST_DYNAMIC:
            library.call("cudnnBuildRNNDynamic", self._handle, self._rnn, case.batch)
        self._lengths = np.ascontiguousarray(case.lengths(), np.int32)
        self._x_data = self._sequence(stack, case.inputs)
        self._output_data = self._sequence(stack, case.directions * case.hidden)
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

    def _sequence(self, stack: ExitStack, size: int) -> ctypes.c_void_p:
        """Describe [T, N, size], padded with zeros."""
        descriptor = stack.enter_context(self._cudnn.created("RNNData"))
        layout = api.CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED
        if self._packed:
            layout = api.CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED
        self._cudnn.call(
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
        case = self.case
        self._mode = api.CUDNN_FWD_MODE_TRAINING if case.train else api.CUDNN_FWD_MODE_INFERENCE
        workspace, reserve, weights = (ctypes.c_size_t() for _ in range(3))
        layer, sizes = (self._handle, self._rnn), (ctypes.byref(workspace), ctypes.byref(reserve))
        self._cudnn.call("cudnnGetRNNTempSpaceSizes", *layer, self._mode, self._x_data, *sizes)
        self._cudnn.call("cudnnGetRNNWeightSpaceSize", *layer, ctypes.byref(weights))
        self._workspace = self._bytes(workspace.value)
        self._reserve = self._bytes(reserve.value if case.train else 0)
        self._weights = self._bytes(weights.value)
        self._d_weights = self._bytes(weights.value if case.train else 0)
        self._device_lengths = self.torch.from_numpy(self._lengths).to(self.device)
        self._results = self._new(case.directions * case.hidden)
        self._gradients = self._new(case.inputs if case.train else 0)

    def _bytes(self, count: int) -> Any:
        return self.torch.zeros(count, dtype=self.torch.uint8, device=self.device)

    def _new(self, size: int) -> States:
        def zeros(*shape: int) -> Any:
            return self.torch.zeros(shape, dtype=self.dtype, device=self.device)

        c = zeros(*self._state_shape) if self.case.cell == "lstm" else None
        return States(zeros(self.case.steps, self.case.batch, size), zeros(*self._state_shape), c)

    def _gates(self, layer: int, parameter: int) -> List[Tuple[int, Tuple[int, ...]]]:
        """Offsets in bytes and shapes of the gates of one of a pseudo-layer's four parameters.

        A pseudo-layer is one direction of one layer, counted as fastrnn does. Each has 2*G linear
        layers, a matrix and a bias: first those of the input, then the recurrent ones, both in
        fastrnn's order of gates.
        """
        gates, hidden = GATES[self.case.cell], self.case.hidden
        recurrent, is_bias = parameter % 2, parameter >= 2
        inputs = self.case.layer_inputs(layer // self.case.directions)
        matrix_shape = (hidden, hidden if recurrent else inputs)
        shape: Tuple[int, ...] = (hidden,) if is_bias else matrix_shape
        base = self._weights.data_ptr()
        places = []
        for gate in range(gates):
            matrix, bias = ctypes.c_void_p(), ctypes.c_void_p()
            self._cudnn.call(
                "cudnnGetRNNWeightParams",
                self._handle,
                self._rnn,
                layer,
                len(self._weights),
                base,
                gates * recurrent + gate,
                self._matrix,
                ctypes.byref(matrix),
                self._bias,
                ctypes.byref(bias),
            )
            address = (bias if is_bias else matrix).value
            assert address is not None, "cuDNN has no such parameter"
            places.append((address - base, shape))
        return places

    def _at(self, space: Any, gate: Tuple[int, Tuple[int, ...]]) -> Any:
        """The part of a weight space that is one gate's."""
        offset, shape = gate
        size = int(np.prod(shape)) * ITEM_BYTES[self.case.dtype]
        return space[offset : offset + size].view(self.dtype).view(shape)

    def weight_gradients(self) -> List[np.ndarray]:
        """Copies on the host of what the latest `backward` gave, in fastrnn's order."""
        return [
            np.concatenate([to_host(self._at(self._d_weights, gate)) for gate in gates])
            for gates in self._parameters
        ]

    def forward(self, x: Any, h_0: Any = None, c_0: Any = None) -> States:
        """Run all steps of x [T, N, I]. The initial states [L*D, N, H] are zero by default."""
        self._given = (x, h_0, c_0)  # backward reads them again
        output, h_n, c_n = self._results
        self._run(
            "cudnnRNNForward",
            self._mode,
            _address(self._device_lengths),
            *(self._x_data, _address(x)),
            *(self._output_data, _address(output)),
            *(self._states, _address(h_0), _address(h_n)),
            *(self._states, _address(c_0), _address(c_n)),
            *(len(self._weights), _address(self._weights)),
        )
        return self._results

    def backward(self, d_output: Any, d_h_n: Any = None, d_c_n: Any = None) -> States:
        """Run all steps backwards, and return the gradients of what `forward` was given.

        The gradients of what `forward` returned are zero by default, except that of the output.
        """
        x, h_0, c_0 = self._given
        d_x, d_h_0, d_c_0 = self._gradients
        output, lengths = _address(self._results.sequence), _address(self._device_lengths)
        self._run(
            "cudnnRNNBackwardData_v8",
            lengths,
            *(self._output_data, output, _address(d_output)),
            *(self._x_data, _address(d_x)),
            *(self._states, _address(h_0), _address(d_h_n), _address(d_h_0)),
            *(self._states, _address(c_0), _address(d_c_n), _address(d_c_0)),
            *(len(self._weights), _address(self._weights)),
        )
        self._d_weights.zero_()  # cuDNN only ever adds to them
        self._run(
            "cudnnRNNBackwardWeights_v8",
            api.CUDNN_WGRAD_MODE_ADD,
            lengths,
            *(self._x_data, _address(x)),
            *(self._states, _address(h_0)),
            *(self._output_data, output),
            *(len(self._weights), _address(self._d_weights)),
        )
        return self._gradients

    def _run(self, name: str, *arguments: Any) -> None:
        """Call one of the passes; workspace and reserve come last in each."""
        stream = self.torch.cuda.current_stream().cuda_stream
        self._cudnn.call("cudnnSetStream", self._handle, stream)
        sized = [part for s in (self._workspace, self._reserve) for part in (len(s), _address(s))]
        self._cudnn.call(name, self._handle, self._rnn, *arguments, *sized)


def _address(tensor: Any) -> Optional[int]:
    return None if tensor is None else tensor.data_ptr() or None


class Cudnn(Peer):
    """One algorithm of cuDNN, told that rows may be padded, or that they are packed."""

    group = GROUP
    devices = ("cuda",)

    def __init__(self, algorithm: str, packed: bool = False):
        self.algorithm, self.packed = algorithm, packed
        self.name = f"{GROUP} {algorithm}" + (" packed" if packed else "")
        self.lacks = ("hybridize", "ragged") if packed else ("hybridize",)

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return device == "cuda" and task == "layer"

    def available(self, device: str) -> Optional[str]:
        try:
            api.load()
        except (ImportError, MissingLibraryError) as error:
            return str(error)
        return None

    def version(self) -> str:
        return str(api.load().version)

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import torch

        return CudnnLayer(torch, case, data, device, Algorithm[self.algorithm], self.packed)
