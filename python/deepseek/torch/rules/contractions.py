"""Matrix products, convolutions, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Operand, rule
from deepseek.torch.shapes import Dim, Unsupported

aten = torch.ops.aten


@rule(aten.mm.default, aten.bmm.default, aten.matmul.default, aten.mv.default)
def matmul(b: Builder, x: Value, y: Value) -> Value:
    return b.op("matmul", x, y)


@rule(aten.addmm.default, aten.baddbmm.default)
def addmm(b: Builder, bias: Value, x: Value, y: Value, *, beta: Operand = 1, alpha: Operand = 1) -> Value:
    product = b.op("matmul", x, y)
    if alpha == beta == 1:
        return b.op("add", product, bias)
    product, bias, first, second = b.operands(product, bias, alpha, beta)
    if alpha != 1:
        product = b.op("mul", product, first)
    if beta != 1:
        bias = b.op("mul", bias, second)
    return b.cast(product if beta == 0 else b.op("add", product, bias), b.dtype())


@rule(aten.linear.default)
def linear(b: Builder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    product = b.op("matmul", x, b.swap(weight))
    return product if bias is None else b.op("add", product, bias)


def spread(values: Sequence[int], count: int) -> list[int]:
    """One value for each spatial axis: PyTorch lets a single one stand for all."""
    return list(values) * count if len(values) == 1 else list(values)


def convolution_inputs(
    b: Builder,
    x: Value,
    weight: Value,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> tuple[Value, Value, dict[str, Any]]:
    """Inputs and attributes of the `conv` that computes PyTorch's (transposed) convolution without bias."""
    count = len(x.shape) - 2
    stride, padding, dilation = spread(stride, count), spread(padding, count), spread(dilation, count)
    attrs: dict[str, Any] = {"feature_groups": groups, "kernel_dilation": dilation}
    if not transposed:
        return x, weight, attrs | {"strides": stride, "pad_low": padding, "pad_high": padding}
    if any(not isinstance(size, int) for size in weight.shape):
        raise Unsupported("a transposed convolution with a symbolic weight")
    extra = spread(output_padding, count)
    reach = [d * (int(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    attrs |= {
        "strides": [1] * count,
        "input_dilation": stride,
        "pad_low": [r - p for r, p in zip(reach, padding, strict=True)],
        "pad_high": [r - p + e for r, p, e in zip(reach, padding, extra, strict=True)],
    }
    return x, _transposed_weight(b, weight, groups), attrs


def _transposed_weight(b: Builder, weight: Value, groups: int) -> Value:
    """[in, out/groups, ...] of a transposed convolution as [out, in/groups, ...] of its equal."""
    inputs, outputs, *window = weight.shape
    weight = b.op("reverse", weight, axes=list(range(2, len(weight.shape))))
    if groups == 1:
        return b.swap(weight, 0, 1)
    apart: list[Dim] = [groups, int(inputs) // groups, outputs, *window]
    weight = b.swap(b.reshape(weight, apart), 1, 2)
    return b.reshape(weight, [groups * int(outputs), int(inputs) // groups, *window])


@rule(aten.convolution.default)
def convolution(b: Builder, x: Value, weight: Value, bias: Value | None, *geometry: Any) -> Value:
    x, weight, attrs = convolution_inputs(b, x, weight, *geometry)
    y = b.op("conv", x, weight, **attrs)
    if bias is None:
        return y
    return b.op("add", y, b.reshape(bias, [bias.shape[0]] + [1] * (len(x.shape) - 2)))


@rule(aten._scaled_dot_product_flash_attention_for_cpu.default)
def attention(
    b: Builder,
    q: Value,
    k: Value,
    v: Value,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value | None, ...]:
    if dropout or b.uses(1):
        raise Unsupported("attention with dropout, or whose sums of exponentials are used")
    q, k, v, attn_mask = attention_inputs(b, q, k, v, attn_mask)
    number, factor = attention_scale(b, q, scale)
    q = q if factor is None else b.op("mul", q, factor)
    y = b.op("attention", q, k, v, attn_mask, causal=causal, scale=number)
    return b.cast(y, b.dtype(0)), None


def attention_inputs(
    b: Builder, q: Value, k: Value, v: Value, mask: Value | None
) -> tuple[Value, Value, Value, Value | None]:
    """In float32 where they are narrower: scores must not be rounded before the softmax."""
    if q.dtype not in ("bfloat16", "float16"):
        return q, k, v, mask
    q, k, v = (b.cast(value, "float32") for value in (q, k, v))
    return q, k, v, mask if mask is None or mask.dtype == "bool" else b.cast(mask, "float32")


def attention_scale(b: Builder, q: Value, scale: float | None) -> tuple[float, Value | None]:
    """The scale of scores and, where it follows from a symbolic size of heads, what queries are to be
    multiplied by before.
    """
    if scale is not None:
        return scale, None
    size = q.shape[-1]
    if isinstance(size, int):
        return float(size**-0.5), None
    return 1.0, b.op("rsqrt", b.tensor(size, q.dtype))
