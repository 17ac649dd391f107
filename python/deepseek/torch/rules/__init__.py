"""Translation rules, one file for each kind of op; importing this package registers them all."""

from deepseek.torch.rules import (
    contractions,
    control,
    creation,
    elementwise,
    experts,
    gamma,
    indexing,
    linalg,
    norms,
    polynomials,
    pools,
    recurrent,
    reductions,
    training,
    views,
)

__all__ = [
    "contractions",
    "control",
    "creation",
    "elementwise",
    "experts",
    "gamma",
    "indexing",
    "linalg",
    "norms",
    "polynomials",
    "pools",
    "recurrent",
    "reductions",
    "training",
    "views",
]
