"""Profiles of what torch.compile(backend="deepseek") compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from deepseek import Tensor, _core
from deepseek.errors import invalid
from deepseek.torch import piece

if TYPE_CHECKING:
    import numpy.typing as npt

_LEAST_RUNS = 6


def profile_pieces(
    model: Callable[..., Any], inputs: Sequence[Any], runs: int, seconds: float
) -> _core.Profile:
    """Steps of the pieces that a call runs; what PyTorch does, Dynamo's guards too, is outside of them."""
    model(*inputs)  # compiles
    with piece.recorded() as calls:
        model(*inputs)
    if not calls:
        raise invalid(
            "profile", 'a model that torch.compile(backend="deepseek") compiled', type(model).__name__
        )
    walls: list[float] = []
    while len(walls) < (runs or _LEAST_RUNS) or (not runs and sum(walls) < seconds):
        begin = time.perf_counter()
        model(*inputs)
        walls.append(time.perf_counter() - begin)
    walls = sorted(walls)[: (len(walls) + 1) // 2]
    parts = []
    for called, tensors in calls:
        arrays: list[_core.Array | npt.NDArray[Any]] = [
            Tensor(piece.dense(tensor.detach()))._array for tensor in tensors
        ]
        parts.append(_core.profile(called.executable._core, arrays, runs, seconds / len(calls)))
    return _core.combined(parts, sum(walls) / len(walls))
