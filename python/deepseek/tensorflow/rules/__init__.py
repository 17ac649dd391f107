"""Translation rules, one file for each kind of op; importing this package registers them all."""

from deepseek.tensorflow.rules import (
    contractions,
    control,
    elementwise,
    indexing,
    lists,
    norms,
    pools,
    reductions,
    resize,
    sizes,
    state,
    views,
)

__all__ = [
    "contractions",
    "control",
    "elementwise",
    "indexing",
    "lists",
    "norms",
    "pools",
    "reductions",
    "resize",
    "sizes",
    "state",
    "views",
]
