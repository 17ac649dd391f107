"""A compiled island, called with PyTorch tensors: addresses go in, PyTorch's allocations come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from weakref import WeakSet

import torch

from deepseek import Executable, _core
from deepseek.torch.shapes import TORCH_DTYPES

Tensors: TypeAlias = list[torch.Tensor]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

# torch.empty_strided in half its time.
empty = torch._C._dynamo.guards._empty_strided_cpu  # type: ignore[attr-defined]


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Row-major memory with the tensor's elements; the tensor itself where it is that already."""
    if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()


class Piece:
    """Runs an executable on tensors. Calls from several threads take turns."""

    def __init__(self, executable: Executable, parameters: Sequence[int], unsettled: Sequence[int]) -> None:
        """`parameters`: positions of inputs whose derived data is kept until address or version change.
        `unsettled`: of those that may be negated views, whose memory holds other numbers.
        """
        self.executable, self.parameters, self.unsettled = executable, parameters, unsettled
        self.context = _core.TensorContext(
            executable._core,
            torch.Tensor.__dlpack_c_exchange_api__,
            parameters,
            unsettled,
            tuple(TORCH_DTYPES[port.dtype] for port in executable.outputs.values()),
            empty,
            dense,
        )
        # Takes the inputs out of a list of the caller's alone; gives the results, which have these shapes.
        self.run: Callable[[Tensors, Shapes], Tensors] = self.context.run_tensors  # type: ignore[assignment]
        _pieces.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Piece, (self.executable, self.parameters, self.unsettled)


_pieces: WeakSet[Piece] = WeakSet()


@contextmanager
def recorded() -> Iterator[list[tuple[Piece, Tensors]]]:
    """Calls of pieces until then, with their inputs."""
    calls: list[tuple[Piece, Tensors]] = []

    def recording(piece: Piece, run: Callable[[Tensors, Shapes], Tensors]) -> None:
        def record(inputs: Tensors, shapes: Shapes) -> Tensors:
            calls.append((piece, list(inputs)))
            return run(inputs, shapes)

        piece.run = record

    runs = {piece: piece.run for piece in _pieces}
    for piece, run in runs.items():
        recording(piece, run)
    try:
        yield calls
    finally:
        for piece, run in runs.items():
            piece.run = run


def refresh(module: torch.nn.Module | None = None) -> None:
    """Tells that parameters were written in a way that PyTorch does not count.

    PyTorch's version counters see in-place operations on a parameter, not those on `parameter.data` or
    through a NumPy array that shares its memory. After such a write the next call derives packed and
    folded weights anew, those of `module` and of every other compiled module.
    """
    _core.TensorContext.refresh()
