"""A compiled island, called with PyTorch tensors: addresses go in, PyTorch's allocations come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter, itemgetter

import torch

from deepseek import Context, Executable
from deepseek.torch.shapes import TORCH_DTYPES

# Calls of pieces while somebody records them (deepseek.torch.profile).
calls: list[tuple[Piece, list[torch.Tensor]]] | None = None


class Piece:
    """Runs an executable on tensors. One call at a time per piece; calls from several threads take turns
    inside Context.
    """

    def __init__(self, executable: Executable, parameters: Sequence[int]) -> None:
        """`parameters`: positions of inputs whose derived data is kept until address or version change."""
        self.executable = executable
        self.context = Context(executable)
        self.parameters = list(parameters)
        # What is known of them: compared all at once, so that a call that finds nothing new costs little.
        self.pick: Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]] = _picker(self.parameters)
        self.addresses: tuple[int, ...] = ()
        self.versions: tuple[int, ...] = ()
        self.epoch = -1
        held = set(self.parameters)
        self.arguments = [i for i in range(len(executable.inputs)) if i not in held]
        self.dtypes = [TORCH_DTYPES[port.dtype] for port in executable.outputs.values()]

    def __call__(self, inputs: Sequence[torch.Tensor], shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """`shapes`: of the results."""
        if calls is not None:
            calls.append((self, list(inputs)))
        self._take_parameters(inputs)
        given = [dense(inputs[i]) for i in self.arguments]
        results = [torch.empty(shape, dtype=dtype) for shape, dtype in zip(shapes, self.dtypes, strict=True)]
        self.context.run_pointers(
            [tensor.data_ptr() for tensor in given],
            [tensor.shape for tensor in given],
            [tensor.data_ptr() for tensor in results],
            shapes,
        )
        return results

    def _take_parameters(self, inputs: Sequence[torch.Tensor]) -> None:
        tensors = self.pick(inputs)
        addresses = tuple(map(torch.Tensor.data_ptr, tensors))
        versions = _versions_of(tensors)
        if addresses == self.addresses and versions == self.versions and self.epoch == _epoch:
            return
        known = set(zip(self.parameters, self.addresses, self.versions, repeat(self.epoch)))
        states = zip(self.parameters, addresses, versions, repeat(_epoch))
        for tensor, state in zip(tensors, states):  # noqa: B905 - as many as parameters
            if state not in known:
                held, version = dense(tensor), hash(state[1:])
                self.context.set_parameter_pointer(state[0], held.data_ptr(), held.shape, version, held)
        self.addresses, self.versions, self.epoch = addresses, versions, _epoch


def _picker(positions: Sequence[int]) -> Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]:
    if len(positions) < 2:  # itemgetter gives one item, not a tuple of one
        return lambda inputs: tuple(inputs[i] for i in positions)
    return itemgetter(*positions)


_version = attrgetter("_version")


def _versions_of(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    try:
        return tuple(map(_version, tensors))
    except RuntimeError:  # an inference tensor among them, which has none
        return tuple(map(version_of, tensors))


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
