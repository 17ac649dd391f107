"""A compiled island, called with PyTorch tensors: addresses go in, PyTorch's allocations come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from weakref import WeakSet

import torch

from deepseek import Executable, _core
from deepseek.specialized import Specializations
from deepseek.torch.shapes import TORCH_DTYPES

Tensors: TypeAlias = list[torch.Tensor]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]
Run: TypeAlias = Callable[[Tensors, Shapes], Tensors]

# torch.empty_strided in half its time.
empty = torch._C._dynamo.guards._empty_strided_cpu  # type: ignore[attr-defined]


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Row-major memory with the tensor's elements; the tensor itself where it is that already."""
    if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()


class Piece:
    """Runs an executable on tensors. Calls from several threads take turns."""

    def __init__(
        self,
        executable: Executable,
        parameters: Sequence[int],
        unsettled: Sequence[int],
        specializations: Callable[[Callable[[Executable], Run]], Specializations[Run]] | None = None,
        updates: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`parameters`: positions of inputs whose derived data is kept until a write is seen (see refresh).
        `unsettled`: of those that may be negated views, whose memory holds other numbers.
        `specializations`: makes those of the executable, given what makes a Run of one.
        `updates`: numbers of results of the island's that are stored in inputs, and of those inputs.
        """
        self.executable, self.parameters, self.unsettled = executable, parameters, unsettled
        self.updates = updates
        self.context = self._context_of(executable)
        # Takes the inputs out of a list of the caller's alone; gives the results, which have these shapes.
        self.run = _run_of(self.context)
        self.specializations = specializations and specializations(
            lambda special: _run_of(self._context_of(special))
        )
        if self.specializations is not None:
            self.run = _by_sizes(self.run, self.specializations)
        _pieces.add(self)

    def _context_of(self, executable: Executable) -> _core.TensorContext:
        return _core.TensorContext(
            executable._core,
            torch.Tensor.__dlpack_c_exchange_api__,
            self.parameters,
            self.unsettled,
            [given for _, given in self.updates],
            tuple(TORCH_DTYPES[port.dtype] for port in executable.outputs.values()),
            empty,
            dense,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if self.specializations is not None:
            raise TypeError("what is compiled in the background belongs to its process")
        return Piece, (self.executable, self.parameters, self.unsettled, None, self.updates)


def _run_of(context: _core.TensorContext) -> Run:
    return context.run_tensors  # type: ignore[return-value]


def _by_sizes(run: Run, specializations: Specializations[Run]) -> Run:
    def run_by_sizes(inputs: Tensors, shapes: Shapes) -> Tensors:
        return (specializations.find([tensor.shape for tensor in inputs]) or run)(inputs, shapes)

    return run_by_sizes


_pieces: WeakSet[Piece] = WeakSet()


@contextmanager
def recorded() -> Iterator[list[tuple[Piece, Tensors]]]:
    """Calls of pieces until then, with their inputs."""
    calls: list[tuple[Piece, Tensors]] = []

    def recording(piece: Piece, run: Run) -> None:
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
    through a NumPy array that shares its memory. A call also looks at a few bytes of each parameter, which
    writes of the whole parameter change; after one of some elements alone the next call needs this to derive
    packed and folded weights anew, those of `module` and of every other compiled module.
    """
    _core.TensorContext.refresh()
