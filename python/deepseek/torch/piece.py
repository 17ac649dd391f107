"""A compiled island, called with PyTorch tensors: addresses go in, PyTorch's allocations come out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepseek import Context, Executable
from deepseek.torch.shapes import TORCH_DTYPES


class Piece:
    """Runs an executable on tensors. One call at a time per piece; calls from several threads take turns
    inside Context.
    """

    def __init__(self, executable: Executable, parameters: Sequence[int]) -> None:
        """`parameters`: positions of inputs whose derived data is kept until address or version change."""
        self.executable = executable
        self.context = Context(executable)
        self.parameters = list(parameters)
        self.known: list[tuple[int, int, int]] = [(0, -1, -1)] * len(self.parameters)
        held = set(self.parameters)
        self.arguments = [i for i in range(len(executable.inputs)) if i not in held]
        self.dtypes = [TORCH_DTYPES[port.dtype] for port in executable.outputs.values()]

    def __call__(self, inputs: Sequence[torch.Tensor], shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """`shapes`: of the results."""
        epoch = _epoch
        for slot, position in enumerate(self.parameters):
            tensor = inputs[position]
            state = (tensor.data_ptr(), version_of(tensor), epoch)
            if state != self.known[slot]:
                held = dense(tensor)
                self.context.set_parameter_pointer(position, held.data_ptr(), held.shape, hash(state), held)
                self.known[slot] = state
        given = [dense(inputs[i]) for i in self.arguments]
        results = [torch.empty(shape, dtype=dtype) for shape, dtype in zip(shapes, self.dtypes, strict=True)]
        self.context.run_pointers(
            [tensor.data_ptr() for tensor in given],
            [tensor.shape for tensor in given],
            [tensor.data_ptr() for tensor in results],
            shapes,
        )
        return results


_epoch = 0


def refresh(module: torch.nn.Module | None = None) -> None:
    """Tells that parameters were written in a way that PyTorch does not count.

    PyTorch's version counters see in-place operations on a parameter, not those on `parameter.data` or
    through a NumPy array that shares its memory. After such a write the next call derives packed and
    folded weights anew, those of `module` and of every other compiled module.
    """
    global _epoch
    _epoch += 1


def version_of(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Row-major memory with the tensor's elements; the tensor itself where it is that already."""
    if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()
