"""Where the time of a run goes, step by step, beside what this machine could do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from deepseek import _core
from deepseek._core import Roof
from deepseek.errors import invalid
from deepseek.executable import Executable


@runtime_checkable
class Bound(Protocol):
    """A model that chooses an Executable by its inputs, and may add to them."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    def bound(self, inputs: Mapping[str, Any]) -> tuple[Executable, dict[str, Any]]: ...


@dataclass(frozen=True)
class StepProfile:
    """One step. Figures are of one run."""

    name: str  # of the kernel
    ops: str  # that are fused in it
    source: str  # the user's line or module path
    way: str  # "gemm", "map", ...
    calls: int
    seconds: float
    best_seconds: float  # the least of any run
    share: float  # of the run
    flops: float  # done: Winograd needs fewer than the direct algorithm
    bytes: float  # every buffer once, read and written
    roof: str  # what limits it at best: "compute", "memory" or "cache"; "" where nothing is known
    roof_seconds: float  # the least time that the roof allows

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def roof_share(self) -> float:
        """1: as fast as this machine allows."""
        return self.roof_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """Steps by time, the longest first; `outside` is what a run takes beyond them, so that all adds up."""

    steps: tuple[StepProfile, ...]
    seconds: float  # of a run
    outside: float
    runs: int  # that the figures are a mean of
    roof: Roof  # of this machine with the threads used
    _core: _core.Profile = field(repr=False, compare=False)

    def table(self, rows: int = 30, *, merge: bool = False) -> str:
        """The longest steps, the rest as one row, and totals.

        `merge`: steps that do equal work become one row with the source of the first.
        """
        return self._core.table(rows, merge)

    def to_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes one run as a trace for ui.perfetto.dev or chrome://tracing: steps, and pieces by worker."""
        self._core.write_chrome_trace(os.fspath(path))

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__


def profile(
    model: Executable | Bound | Callable[..., Any],
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    runs: int = 0,
    seconds: float = 1.0,
) -> Profile:
    """Runs a compiled model on these inputs (by name or in order) and says where the time goes.

    `model`: what `compile` or `load` gave, or a callable that uses torch.compile(backend="deepseek").
    `runs`: how many to time, 0 for as many as fit into `seconds`; the slower half of them is left out.
    Printing the result gives a table. The first call measures what the machine can do.

    >>> import numpy as np, deepseek as ds
    >>> graph = ds.Graph()
    >>> x = graph.placeholder("x", shape=[64, 64], dtype="float32")
    >>> y = graph.matmul(x, x, name="y")
    >>> ds.profile(ds.compile(graph), {"x": np.ones((64, 64), "float32")}).steps[0].way
    'gemm'
    """
    if isinstance(model, (Executable, Bound)):
        named = inputs if isinstance(inputs, Mapping) else dict(zip(model.inputs, inputs, strict=False))
        if isinstance(model, Bound):
            model, named = model.bound(named)
        made = _core.profile(model._core, model._arrays(named), runs, seconds)
    elif callable(model) and "torch" in sys.modules:
        from deepseek.torch.profile import profile_pieces

        given = inputs.values() if isinstance(inputs, Mapping) else inputs
        made = profile_pieces(model, list(given), runs, seconds)
    else:
        raise invalid("profile", "a model that deepseek compiled", type(model).__name__)
    names = StepProfile.__dataclass_fields__
    steps = tuple(StepProfile(**{name: getattr(step, name) for name in names}) for step in made.steps)
    return Profile(steps, made.seconds, made.outside, made.runs, made.roof, made)


__all__ = ["Profile", "Roof", "StepProfile", "profile"]
