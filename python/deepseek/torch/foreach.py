"""Ops on lists of tensors (`torch._foreach_*`), in which optimizers are written: one by one, as ATen's own
slow path computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten


def _addcmul(x: Tensor, a: Tensor, b: Tensor, value: Any) -> Tensor:
    return x + value * a * b if isinstance(value, Tensor) else torch.addcmul(x, a, b, value=value)


def _addcdiv(x: Tensor, a: Tensor, b: Tensor, value: Any) -> Tensor:
    return x + value * a / b if isinstance(value, Tensor) else torch.addcdiv(x, a, b, value=value)


def _norm(x: Tensor, ord: float = 2, dtype: torch.dtype | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, ord, dtype=dtype)
    return norm


UNARY = (
    *("abs", "acos", "asin", "atan", "ceil", "clone", "cos", "cosh", "erf", "erfc", "exp", "expm1", "floor"),
    *("frac", "lgamma", "log", "log10", "log1p", "log2", "neg", "reciprocal", "round", "rsqrt", "sigmoid"),
    *("sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)

# By op and overload; what stands in a list is given element by element.
OTHERS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "add": (torch.add, ("Scalar", "List", "ScalarList", "Tensor")),
    "sub": (torch.sub, ("Scalar", "List", "ScalarList")),
    "mul": (torch.mul, ("Scalar", "List", "ScalarList", "Tensor")),
    "div": (torch.div, ("Scalar", "List", "ScalarList", "Tensor")),
    "pow": (torch.pow, ("Scalar", "List", "ScalarList", "ScalarAndTensor")),
    "lerp": (torch.lerp, ("Scalar", "List", "ScalarList")),
    "addcmul": (_addcmul, ("Scalar", "ScalarList", "Tensor")),
    "addcdiv": (_addcdiv, ("Scalar", "ScalarList", "Tensor")),
    "norm": (_norm, ("Scalar",)),
    "clamp_min": (torch.clamp_min, ("Scalar", "List", "ScalarList")),
    "clamp_max": (torch.clamp_max, ("Scalar", "List", "ScalarList")),
    "maximum": (torch.clamp_min, ("Scalar", "List", "ScalarList")),
    "minimum": (torch.clamp_max, ("Scalar", "List", "ScalarList")),
}


def _register(op: Any, function: Callable[..., Tensor]) -> None:
    arguments = op._schema.arguments
    listed = {a.name for a in arguments if str(a.type).startswith("List[")}
    listed |= {a.name for a in arguments if a.name == "scalars"}  # also where they are one tensor
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    names = [a.name for a in arguments if not a.kwarg_only]

    @decomposition(op)
    def expand(*args: Any, **kwargs: Any) -> list[Tensor]:
        given = defaults | dict(zip(names, args, strict=False)) | kwargs
        count = max(len(given[name]) for name in listed)
        return [
            function(
                *((given[name][i] if name in listed else given[name]) for name in names),
                **{name: value for name, value in given.items() if name not in names},
            )
            for i in range(count)
        ]


for _name in UNARY:
    _register(getattr(aten, f"_foreach_{_name}").default, getattr(torch, _name))
for _name, (_function, _overloads) in OTHERS.items():
    for _overload in _overloads:
        _register(getattr(getattr(aten, f"_foreach_{_name}"), _overload), _function)
