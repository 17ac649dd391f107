"""Operators of our own in PyTorch's dispatcher, and the decompositions that AOT Autograd traces with.

PyTorch's backward of attention takes a by-product of its forward pass, sums of exponentials, that a fused
forward does not have. `deepseek::attention_backward` works from the inputs alone; it also runs in PyTorch,
where a piece falls back to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import core_aten_decompositions

from deepseek.torch import (  # noqa: F401 - they register
    bags,
    bessel,
    counted,
    ctc,
    distances,
    flex,
    foreach,
    fractional,
    grids,
    histograms,
    losses,
    matrices,
    recurrent,
    resample,
    special,
    traced,
)
from deepseek.torch import decompositions as further

aten = torch.ops.aten


@torch.library.custom_op("deepseek::attention_backward", mutates_args=())
def _attention_backward(
    dy: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    y, sums = aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=mask, scale=scale
    )
    gradients: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = (
        aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dy, q, k, v, y, sums, 0.0, causal, attn_mask=mask, scale=scale
        )
    )
    return gradients


@_attention_backward.register_fake
def _attention_backward_fake(
    dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


ATTENTION_BACKWARD = torch.ops.deepseek.attention_backward.default

# What we compile whole, as one op, although PyTorch could take it apart.
WHOLE = (
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._softmax_backward_data.default,
    aten._log_softmax_backward_data.default,
    aten.embedding_dense_backward.default,
    aten.gelu_backward.default,
    aten.native_batch_norm_backward.default,
    aten.native_layer_norm_backward.default,
    aten.baddbmm.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.mish.default,
    aten.tril.default,
    aten.triu.default,
)


def _attention_gradient(
    dy: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    y: torch.Tensor,
    sums: torch.Tensor,
    dropout: float,
    causal: bool,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> Any:
    return ATTENTION_BACKWARD(dy, q, k, v, attn_mask, causal, scale)


def _outer_first(x: torch.Tensor, a: int, b: int) -> int:
    """Which of two axes comes first in memory; equal ones, and those of one element, stay as they are."""
    if x.shape[a] == 1 or x.shape[b] == 1 or x.stride(a) == x.stride(b):
        return 0
    return -1 if x.stride(a) > x.stride(b) else 1


def _dropout(x: torch.Tensor, probability: float, train: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws from PyTorch's own generator, so that a seed gives the masks that eager PyTorch draws.

    They are drawn in the order in which PyTorch lays out a result like x, as eager PyTorch draws them. The
    draw depends on x's shape only (`partition.DRAWS_LIKE`), so it comes before the compiled piece.
    """
    if train is False or probability == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if probability == 1:
        return torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    order = list(range(x.dim()))
    if not x.is_contiguous():
        order.sort(key=functools.cmp_to_key(functools.partial(_outer_first, torch.empty_like(x))))
    drawn = aten.bernoulli.p(x.permute(order), 1 - probability)
    mask = drawn.permute([order.index(axis) for axis in range(x.dim())]).to(torch.bool)
    return x * mask * (1 / (1 - probability)), mask


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Core ATen's table without the ops that we compile whole, with ours added."""
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table |= resample.table() | further.table()
    for op in WHOLE:
        table.pop(op, None)
    table[aten._scaled_dot_product_flash_attention_for_cpu_backward.default] = _attention_gradient
    table[aten.native_dropout.default] = _dropout
    return table
