"""ATen's backward ops, through the gradients of our own ops where there is one that fits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepseek import Value
from deepseek.torch import library as _library  # registers torch.ops.deepseek
from deepseek.torch.builder import Builder, axis, rule
from deepseek.torch.rules.contractions import attention_inputs, attention_scale, convolution_inputs, spread
from deepseek.torch.rules.creation import filled
from deepseek.torch.rules.norms import channels
from deepseek.torch.rules.pools import average_window, window
from deepseek.torch.rules.reductions import reduce
from deepseek.torch.shapes import Dim, Unsupported, product

aten = torch.ops.aten
ATTENTION_BACKWARD = _library.ATTENTION_BACKWARD


@rule(aten.convolution_backward.default)
def convolution_backward(
    b: Builder,
    dy: Value,
    x: Value,
    weight: Value,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    needed: Sequence[bool],
) -> tuple[Value | None, ...]:
    dx: Value | None
    dw: Value | None
    count = len(x.shape) - 2
    exact = all(e < s for e, s in zip(spread(output_padding, count), spread(stride, count), strict=True))
    if transposed and exact:
        # It is the gradient of a convolution with the same weight, which takes dy to dx.
        _, _, attrs = convolution_inputs(b, dy, weight, stride, padding, dilation, False, (0,), groups)
        dx = b.op("conv", dy, weight, **attrs) if needed[0] else None
        dw = b.gradient("conv", [dy, weight], attrs, [x], [False, needed[1]])[1]
    else:
        inputs_x, inputs_w, attrs = convolution_inputs(
            b, x, weight, stride, padding, dilation, transposed, output_padding, groups
        )
        dx, dw = b.gradient("conv", [inputs_x, inputs_w], attrs, [dy], [needed[0], needed[1]])
        if transposed and dw is not None:
            dw = _untransposed_weight(b, dw, weight, groups)
    over = [0, *range(2, len(dy.shape))]
    return dx, dw, b.op("sum", dy, axes=over, keepdims=False) if needed[2] else None


def _untransposed_weight(b: Builder, dw: Value, weight: Value, groups: int) -> Value:
    """Gradient of `_transposed_weight`'s result as that of its input."""
    inputs, outputs, *kernel = (int(size) for size in weight.shape)
    apart: list[Dim] = [groups, outputs, inputs // groups, *kernel]
    dw = b.reshape(b.swap(b.reshape(dw, apart), 1, 2), weight.shape)
    return b.op("reverse", dw, axes=list(range(2, len(weight.shape))))


@rule(aten.max_pool2d_with_indices_backward.default, aten.max_pool3d_with_indices_backward.default)
def max_pool_backward(
    b: Builder,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Value,
) -> Value:
    count = len(kernel)
    attrs = window(x, dy.shape[-count:], kernel, stride, padding, dilation)
    if len(x.shape) == count + 2:
        return b.op("max_pool_grad", dy, indices, shape=list(x.shape), **attrs)
    dy, indices = b.reshape(dy, [1, *dy.shape]), b.reshape(indices, [1, *indices.shape])
    return b.reshape(b.op("max_pool_grad", dy, indices, shape=[1, *x.shape], **attrs), x.shape)


@rule(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def avg_pool_backward(
    b: Builder,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Value:
    count = 2 if b.node is not None and b.node.target is aten.avg_pool2d_backward.default else 3
    name, attrs = average_window(
        x, dy.shape[-count:], kernel, stride, padding, ceil_mode, count_include_pad, divisor
    )
    if divisor is not None:
        dy = b.op("div", dy, b.constant(divisor, dy.dtype))
    lacks_batch = len(x.shape) == count + 1
    image = b.reshape(x, [1, *x.shape]) if lacks_batch else x
    dy = b.reshape(dy, [1, *dy.shape]) if lacks_batch else dy
    return b.reshape(_only(b.gradient(name, [image], attrs, [dy], [True])), x.shape)


@rule(aten.adaptive_max_pool2d_backward.default, aten.adaptive_max_pool3d_backward.default)
def adaptive_max_pool_backward(b: Builder, dy: Value, x: Value, indices: Value) -> Value:
    count = 2 if b.node is not None and b.node.target is aten.adaptive_max_pool2d_backward.default else 3
    lead = list(x.shape[:-count])

    def flat(value: Value) -> Value:
        return b.reshape(value, [*lead, product(value.shape[-count:])])

    zeros = filled(b, [*lead, product(x.shape[-count:])], 0, x.dtype)
    dx = b.op("scatter_elements", zeros, flat(indices), flat(dy), axis=len(lead), reduction="add")
    return b.reshape(dx, x.shape)


@rule(aten._adaptive_avg_pool2d_backward.default, aten._adaptive_avg_pool3d_backward.default)
def adaptive_avg_pool_backward(b: Builder, dy: Value, x: Value) -> Value:
    spatial = 2 if b.node is not None and b.node.target is aten._adaptive_avg_pool2d_backward.default else 3
    return _only(b.gradient("adaptive_avg_pool", [x], {"size": dy.shape[-spatial:]}, [dy], [True]))


def _only(gradients: Sequence[Value | None]) -> Value:
    gradient = gradients[0]
    if gradient is None:
        raise Unsupported("an op without gradient")
    return gradient


@rule(ATTENTION_BACKWARD)
def attention_backward(
    b: Builder, dy: Value, q: Value, k: Value, v: Value, mask: Value | None, causal: bool, scale: float | None
) -> tuple[Value | None, ...]:
    q, k, v, mask = attention_inputs(b, q, k, v, mask)
    number, factor = attention_scale(b, q, scale)
    q = q if factor is None else b.op("mul", q, factor)
    attrs = {"causal": causal, "scale": number}
    dy = b.cast(dy, q.dtype)
    dq, dk, dv, _ = b.gradient("attention", [q, k, v, mask], attrs, [dy], [True, True, True, False])
    if factor is not None and dq is not None:
        dq = b.op("mul", dq, factor)
    return b.as_traced(dq, dk, dv)


@rule(aten.gelu_backward.default)
def gelu_backward(b: Builder, dy: Value, x: Value, *, approximate: str = "none") -> Value:
    dy, x = b.wide(dy, x)  # type: ignore[assignment]
    return b.cast(_only(b.gradient("gelu", [x], {"approximate": approximate}, [dy], [True])), b.dtype())


@rule(aten._softmax_backward_data.default)
def softmax_backward(b: Builder, dy: Value, y: Value, along: int, dtype: torch.dtype) -> Value:
    dy, y = b.wide(dy, y)  # type: ignore[assignment]
    product = b.op("mul", dy, y)
    total = reduce(b, "sum", product, [axis(along, len(y.shape))] if y.shape else [], keepdim=True)
    return b.cast(b.op("sub", product, b.op("mul", y, total)), b.dtype())


@rule(aten._log_softmax_backward_data.default)
def log_softmax_backward(b: Builder, dy: Value, y: Value, along: int, dtype: torch.dtype) -> Value:
    dy, y = b.wide(dy, y)  # type: ignore[assignment]
    total = reduce(b, "sum", dy, [axis(along, len(y.shape))] if y.shape else [], keepdim=True)
    return b.cast(b.op("sub", dy, b.op("mul", b.op("exp", y), total)), b.dtype())


@rule(aten.embedding_dense_backward.default)
def embedding_backward(
    b: Builder, dy: Value, index: Value, rows: int, padding: int, by_frequency: bool
) -> Value:
    if by_frequency:
        raise Unsupported("embedding gradients scaled by frequency")
    if padding >= 0:
        skip = b.op("equal", index, b.constant(padding, index.dtype))
        skip = b.reshape(skip, [*index.shape, 1])
        dy = b.op("select", skip, b.constant(0, dy.dtype), dy)
    table = filled(b, b.shape(), 0, dy.dtype)
    return _only(b.gradient("gather", [table, index], {"axis": 0}, [dy], [True, False]))


def _norm_gradient(b: Builder, dxhat: Value, xhat: Value, scale: Value, over: Sequence[int]) -> Value:
    """Gradient of x -> (x - mean) / deviation over the axes `over`; `scale` is 1 / deviation."""
    mean = b.op("mean", dxhat, axes=list(over), keepdims=True)
    slope = b.op("mean", b.op("mul", dxhat, xhat), axes=list(over), keepdims=True)
    return b.op("mul", b.op("sub", b.op("sub", dxhat, mean), b.op("mul", xhat, slope)), scale)


@rule(aten.native_layer_norm_backward.default)
def layer_norm_backward(
    b: Builder,
    dy: Value,
    x: Value,
    shape: Sequence[Dim],
    mean: Value,
    scale: Value,
    weight: Value | None,
    bias: Value | None,
    needed: Sequence[bool],
) -> tuple[Value | None, ...]:
    rank = len(x.shape)
    first = rank - len(shape)
    dy, x, mean, scale, weight = b.wide(dy, x, mean, scale, weight)  # type: ignore[assignment]
    xhat = b.op("mul", b.op("sub", x, mean), scale)
    dx = dw = db = None
    if needed[0]:
        dxhat = dy if weight is None else b.op("mul", dy, weight)
        dx = _norm_gradient(b, dxhat, xhat, scale, range(first, rank))
    if needed[1]:
        dw = b.reshape(reduce(b, "sum", b.op("mul", dy, xhat), range(first)), shape)
    if needed[2]:
        db = b.reshape(reduce(b, "sum", dy, range(first)), shape)
    return b.as_traced(dx, dw, db)


@rule(aten.native_batch_norm_backward.default)
def batch_norm_backward(
    b: Builder,
    dy: Value,
    x: Value,
    weight: Value | None,
    running_mean: Value | None,
    running_variance: Value | None,
    mean: Value | None,
    scale: Value | None,
    training: bool,
    eps: float,
    needed: Sequence[bool],
) -> tuple[Value | None, ...]:
    rank = len(x.shape)
    over = [0, *range(2, rank)]
    dy, x, weight, running_mean, running_variance, mean, scale = b.wide(  # type: ignore[assignment]
        dy, x, weight, running_mean, running_variance, mean, scale
    )
    if not training:
        if running_mean is None or running_variance is None:
            raise Unsupported("batch normalisation without statistics")
        mean = running_mean
        scale = b.op("rsqrt", b.op("add", running_variance, b.constant(eps, running_variance.dtype)))
    assert mean is not None
    assert scale is not None
    scale = b.reshape(scale, channels(scale, rank))
    xhat = b.op("mul", b.op("sub", x, b.reshape(mean, channels(mean, rank))), scale)
    dx = dw = db = None
    if needed[0]:
        dxhat = dy if weight is None else b.op("mul", dy, b.reshape(weight, channels(weight, rank)))
        dx = _norm_gradient(b, dxhat, xhat, scale, over) if training else b.op("mul", dxhat, scale)
    if needed[1]:
        dw = b.op("sum", b.op("mul", dy, xhat), axes=over, keepdims=False)
    if needed[2]:
        db = b.op("sum", dy, axes=over, keepdims=False)
    return b.as_traced(dx, dw, db)
