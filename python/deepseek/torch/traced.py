"""Functions of PyTorch's at which Dynamo breaks graphs, since they look at values while they are traced; here
the checks of values are nodes of the graph (`aten._assert_async`, whose errors are RuntimeErrors).

Eager PyTorch keeps its own: these take part in tracing alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch.nn import functional
from torch.nn.modules import transformer

from deepseek.torch.decompositions import decomposition
from deepseek.torch.losses import MEAN

aten = torch.ops.aten


def inlined(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Dynamo traces the decorated function where the user calls `function`."""

    def register(ours: Callable[..., Any]) -> Callable[..., Any]:
        def handle(_: Any, tx: Any, *args: VariableTracker, **kwargs: VariableTracker) -> Any:
            return tx.inline_user_function_return(VariableTracker.build(tx, ours), list(args), kwargs)

        TorchInGraphFunctionVariable._get_handlers()[function] = handle
        return ours

    return register


WHOLE = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)


def traced(
    op: Any, keys: Sequence[DispatchKey] = WHOLE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Tracing takes the decorated function for `op`, gradients included. `keys`: where PyTorch looks."""

    def register(ours: Callable[..., Any]) -> Callable[..., Any]:
        for key in keys:
            op.py_kernels.pop(key, None)
            op.py_impl(key)(ours)
        return ours

    return register


def _differing(x: Tensor, other: Tensor) -> int:
    """The sizes of `other` that x does not have, added."""
    return sum(b for a, b in zip(x.shape, other.shape, strict=True) if a != b)


@inlined(functional.gaussian_nll_loss)
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - t)^2 / v) / 2 of variances v no less than `eps`; they may lack the last axis, or have
    one element there.
    """
    if isinstance(var, float):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * torch.ones_like(input)
    else:
        torch._assert_async(~(var < 0).any(), "var has negative entry/entries")
    if var.shape != input.shape:
        if input.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        elif input.dim() != var.dim() or _differing(input, var) != 1:
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    # The gradient of a variance below eps is that at eps.
    kept = torch.where(var < eps, var + (eps - var).detach(), var)
    loss = 0.5 * (torch.log(kept) + (input - target) ** 2 / kept)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _weights(given: Tensor | None, name: str, count: Any) -> Tensor | None:
    if given is None:
        return None
    if given.dim() > 1 or given.numel() != count:
        raise RuntimeError(f"cov(): expected {name} to have one element per observation")
    torch._assert_async(~(given < 0).any(), f"cov(): {name} cannot be negative")
    return given


@traced(aten.cov.default)
def cov(
    x: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Covariances of rows over columns, which may count several times or in part."""
    if x.dim() > 2:
        raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got {x.dim()}")
    if x.dtype == torch.bool:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    rows = x if x.dim() == 2 else x.reshape(1, -1)
    count = rows.shape[1]
    times, parts = _weights(fweights, "fweights", count), _weights(aweights, "aweights", count)
    weight = times * parts if times is not None and parts is not None else times if parts is None else parts
    weighted = rows if weight is None else rows * weight
    if weight is None:
        average = weighted.sum(1) / count
        left: Any = max(count - correction, 0)
    else:
        total = weight.sum()
        torch._assert_async(total != 0, "cov(): weights sum to zero, can't be normalized")
        average = weighted.sum(1) / total
        lost = (weight * parts).sum() * correction / total if parts is not None else correction
        left = (total - lost).clamp(min=0)
    around = rows - average.unsqueeze(1)
    other = around if weight is None else around * weight
    products = around @ other.mT.conj()
    return torch.squeeze(products / left)


@decomposition(aten.multilabel_margin_loss_forward.default)
@traced(aten.multilabel_margin_loss_forward.default, [DispatchKey.Autograd])
def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """max(0, 1 - x[label] + x[other]) / classes over all pairs; a row's labels end at the first -1.

    PyTorch's own rule counts what comes after as label 0.
    """
    if x.dim() > 2 or x.shape != target.shape or x.shape[-1:] == (0,):
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for input of size: {list(x.shape)}"
        )
    shape = [-1, x.shape[-1] if x.dim() else 1]
    rows, labels = x.reshape(shape), target.reshape(shape)
    classes = torch.arange(rows.shape[1])
    ends = torch.where(labels < 0, classes, rows.shape[1]).amin(1, keepdim=True)
    counts = classes < ends
    place = torch.where(counts, labels, 0)
    is_label = ((place.unsqueeze(2) == classes) & counts.unsqueeze(2)).any(1)
    margin = (1 - rows.gather(1, place).unsqueeze(2) + rows.unsqueeze(1)).clamp(min=0)
    pairs = counts.unsqueeze(2) & ~is_label.unsqueeze(1)
    loss = torch.where(pairs, margin, 0).sum((1, 2)) / rows.shape[1]
    if reduction != 0:
        loss = loss.mean() if reduction == MEAN else loss.sum()
    elif x.dim() < 2:
        loss = loss.reshape(())
    return loss.to(x.dtype), is_label.to(x.dtype).reshape(x.shape)


@torch._dynamo.decorators.substitute_in_graph(transformer._detect_is_causal_mask)
def is_causal(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """A hint of the user's; without it the mask itself says what it hides, whatever is in it."""
    return is_causal is True
