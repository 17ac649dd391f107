"""torch.nn.attention.flex_attention is compiled whole, without gradients, as PyTorch has it on CPU."""

from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])


def plain(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return flex_attention(q, k, v)


def biased(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + (i - j) * SLOPES[h], scale=0.3)


def capped(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.tanh(s / 0.5 + (i - j) * 0.1) * 0.5)


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return flex_attention(q, k[:, :2], v[:, :2], enable_gqa=True)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Any:
    n = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n, device="cpu")
    return flex_attention(q, k, v, block_mask=mask)


def windowed(q: Tensor, k: Tensor, v: Tensor) -> Any:
    n = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: (i - j).abs() + b + h < 4, 2, 4, n, n, device="cpu")
    return flex_attention(q, k, v, block_mask=mask, score_mod=lambda s, b, h, i, j: s * 2)


@pytest.mark.parametrize("size", [128, 70])
@pytest.mark.parametrize("function", [plain, biased, capped, grouped, causal, windowed])
def test_attention(function: Callable[..., Any], size: int) -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, size, 8) for _ in range(3))
    with torch.no_grad():
        got = torch.compile(function, backend="deepseek", fullgraph=True)(q, k, v)
        torch.testing.assert_close(got, function(q, k, v), rtol=1e-4, atol=1e-5)
    assert not bridge.explain().eager_ops
