"""Losses that PyTorch computes chunk by chunk to save memory, in one piece; gradients of losses without
scattering.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.modules import linear_cross_entropy as _chunked  # noqa: F401 - registers torch.ops.torch_nn

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten
MEAN = 1  # PyTorch's number for the reduction


@decomposition(aten.nll_loss_backward.default)
def _nll_loss_backward(
    dy: Tensor,
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignored: int,
    total: Tensor,
) -> Any:
    """Each element by itself: no zeros that are scattered over before anybody reads them."""
    if scores.dim() != 2:
        return decomposition_table[aten.nll_loss_backward.default](
            dy, scores, target, weight, reduction, ignored, total
        )
    known = target != ignored
    place = torch.where(known, target, 0)
    slope = dy / total if reduction == MEAN else dy
    if weight is not None:
        slope = slope * weight.index_select(0, place)
    slope = torch.where(known, -slope, torch.zeros_like(slope)).unsqueeze(1)
    hot = place.unsqueeze(1) == torch.arange(scores.shape[1])
    return torch.where(hot, slope, torch.zeros_like(slope))


def _weighted(
    x: Tensor,
    rows: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    ignored: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, the loss of each sample, its weight and its class (0 where it is ignored)."""
    logits = x @ rows.to(x.dtype).t()
    if bias is not None:
        logits = logits + bias.to(x.dtype)
    known = target != ignored
    place = torch.where(known, target, 0)
    scale = known.to(x.dtype)
    if weight is not None:
        scale = scale * weight.to(x.dtype).index_select(0, place)
    scores = torch.log_softmax(logits, 1)
    loss = -scores.gather(1, place.unsqueeze(1)).squeeze(1)
    return scores, torch.where(known, loss, torch.zeros_like(loss)), scale, place


@decomposition(torch.ops.torch_nn._linear_cross_entropy_batch_chunked.default)
def _linear_cross_entropy(
    x: Tensor,
    rows: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    ignored: int,
    label_smoothing: float,
    chunk: int,
    policy: str,
    accumulate: torch.dtype,
    retain: bool,
    needs_x: bool,
    needs_rows: bool,
    needs_bias: bool,
) -> Any:
    """Cross entropy of x rows^T + bias, and its gradients for a gradient of 1."""
    if label_smoothing != 0:
        return NotImplemented
    scores, loss, scale, place = _weighted(x, rows, target, bias, weight, ignored)
    if reduction == "mean":
        total = scale.sum()
        scale = scale / torch.where(total == 0, torch.full_like(total, float("nan")), total)
    value = (loss * scale).sum()
    if reduction == "mean" and x.shape[0] == 0:
        value = torch.full_like(value, float("nan"))
    hot = (place.unsqueeze(1) == torch.arange(rows.shape[0])).to(x.dtype)
    slope = (scores.exp() - hot) * scale.unsqueeze(1)
    nothing = x.new_zeros((0, 0))
    return (
        value,
        slope @ rows.to(x.dtype) if needs_x else nothing,
        slope.t() @ x if needs_rows else nothing.clone(),
        slope.sum(0) if needs_bias else x.new_zeros((0,)),
    )


@decomposition(torch.ops.torch_nn._linear_cross_entropy_batch_chunked_no_reduction.default)
def _linear_cross_entropies(
    x: Tensor,
    rows: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    ignored: int,
    chunk: int,
    policy: str,
    accumulate: torch.dtype,
) -> Tensor:
    _, loss, scale, _ = _weighted(x, rows, target, bias, weight, ignored)
    return loss * scale
