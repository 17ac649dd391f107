"""Matrix products, convolutions, Einstein sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, rule, sizes_of
from deepseek.tensorflow.rules.window import (
    layout_of,
    padded,
    paddings,
    spatial,
    spatial_sizes,
    static_window,
)
from deepseek.tensorflow.shapes import Size, Unsupported, dim, product


@rule("MatMul")
def matmul(b: Builder, x: Tensor, y: Tensor) -> Value:
    x = b.swap(x) if b.attr("transpose_a") else x
    y = b.swap(y) if b.attr("transpose_b") else y
    return b.op("matmul", x, y)


@rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(b: Builder, x: Tensor, y: Tensor) -> Value:
    x = b.swap(x) if b.attr("adj_x") else x
    y = b.swap(y) if b.attr("adj_y") else y
    return b.op("matmul", x, y)


def kernel_layout(rank: int, letters: str = "IO") -> str:
    return "".join(str(i) for i in range(rank - 2)) + letters


@rule("Conv2D", "Conv3D")
def convolution(b: Builder, x: Tensor, kernel: Tensor) -> Value:
    layout = layout_of(b, len(x.shape))
    groups = sizes_of(x)[layout.index("C")] // sizes_of(kernel)[-2]
    if isinstance(groups, Size):
        raise Unsupported("channels without symbols")
    return _convolve(b, x, kernel, layout, groups)


def _convolve(b: Builder, x: Tensor, kernel: Tensor, layout: str, groups: int) -> Value:
    strides = spatial(layout, b.attr("strides"))
    dilations = spatial(layout, b.attr("dilations"))
    taps = static_window(b, sizes_of(kernel)[:-2], "a kernel")
    extents = [(tap - 1) * dilation + 1 for tap, dilation in zip(taps, dilations, strict=True)]
    low, high = paddings(b, layout, spatial_sizes(x, layout), extents, strides)
    x, pads = padded(b, x, layout, low, high, 0)
    return b.op(
        "conv",
        x,
        kernel,
        strides=strides,
        kernel_dilation=dilations,
        feature_groups=groups,
        input_layout=layout,
        kernel_layout=kernel_layout(len(layout)),
        output_layout=layout,
        **pads,
    )


@rule("DepthwiseConv2dNative")
def depthwise(b: Builder, x: Tensor, kernel: Tensor) -> Value:
    *window, channels, multiplier = static_window(b, sizes_of(kernel), "a kernel")
    kernel = b.reshape(kernel, [*window, 1, channels * multiplier])
    return _convolve(b, x, kernel, layout_of(b, len(x.shape)), channels)


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def transposed_convolution(b: Builder, shape: Tensor, kernel: Tensor, y: Tensor) -> Value:
    layout = layout_of(b, len(y.shape))
    strides = spatial(layout, b.attr("strides"))
    dilations = spatial(layout, b.attr("dilations"))
    taps = static_window(b, sizes_of(kernel)[:-2], "a kernel")
    reach = [(tap - 1) * dilation for tap, dilation in zip(taps, dilations, strict=True)]
    sizes = spatial(layout, b.sizes(shape, "the shape of the result"))
    low, _ = paddings(b, layout, sizes, [r + 1 for r in reach], strides)
    first, last = [], []
    for r, before, size, small, stride in zip(
        reach, low, sizes, spatial_sizes(y, layout), strides, strict=True
    ):
        first.append(r - before)
        last.append(size - ((small - 1) * stride + 1) + before)
    if any(isinstance(value, Size) for value in (*first, *last)):
        raise Unsupported("padding without symbols")
    inputs, given = sizes_of(kernel)[-1], sizes_of(y)[layout.index("C")]
    groups = given // inputs if inputs != given else 1
    if groups != 1:
        raise Unsupported("a transposed convolution without groups")
    return b.op(
        "conv",
        y,
        b.op("reverse", kernel, axes=list(range(len(taps)))),
        pad_low=first,
        pad_high=last,
        input_dilation=strides,
        kernel_dilation=dilations,
        input_layout=layout,
        kernel_layout=kernel_layout(len(layout), "OI"),
        output_layout=layout,
    )


@rule("Einsum")
def einsum(b: Builder, *operands: Tensor) -> Value:
    left, result = b.attr("equation").replace(" ", "").split("->")
    terms = left.split(",")
    ellipsis = max(
        (
            len(x.shape) - len(term.replace("...", ""))
            for x, term in zip(operands, terms, strict=True)
            if "..." in term
        ),
        default=0,
    )
    names = "".join(chr(ord("\u0391") + i) for i in range(ellipsis))  # letters that no equation has

    def spelled(term: str, rank: int) -> str:
        own = rank - len(term.replace("...", ""))
        return term.replace("...", names[ellipsis - own :])

    terms = [spelled(term, len(x.shape)) for x, term in zip(operands, terms, strict=True)]
    result = result.replace("...", names)
    if len(operands) > 2 or any(len(set(term)) < len(term) for term in (*terms, result)):
        raise Unsupported("an equation of one or two operands without diagonals")
    reduced = []
    for i, (x, term) in enumerate(zip(operands, terms, strict=True)):
        others = result + "".join(terms[:i] + terms[i + 1 :])
        reduced.append(_summed(b, x, term, [label for label in term if label not in others]))
    if len(reduced) == 1:
        x, term = reduced[0]
        return b.transpose(x, [term.index(label) for label in result])
    return _product(b, reduced[0], reduced[1], result)


def _summed(b: Builder, x: Tensor, term: str, labels: Sequence[str]) -> tuple[Tensor, str]:
    if not labels:
        return x, term
    summed = b.op("sum", x, axes=[term.index(label) for label in labels], keepdims=False)
    return summed, "".join(label for label in term if label not in labels)


def _product(b: Builder, left: tuple[Tensor, str], right: tuple[Tensor, str], result: str) -> Value:
    (x, xs), (y, ys) = left, right
    extents: dict[str, Any] = {}
    for tensor, term in (right, left):
        for label, value in zip(term, sizes_of(tensor), strict=True):
            if label not in extents or isinstance(extents[label], Size) or extents[label] == 1:
                extents[label] = value
    batch = [label for label in result if label in xs and label in ys]
    inner = [label for label in xs if label in ys and label not in batch]
    rows = [label for label in xs if label not in ys]
    columns = [label for label in ys if label not in xs]

    def arranged(tensor: Tensor, term: str, groups: Sequence[Sequence[str]]) -> Value:
        """The tensor with its axes in that order, those of a group as one."""
        order = [label for group in groups for label in group]
        turned = b.transpose(tensor, [term.index(label) for label in order])
        sizes = dict(zip(order, sizes_of(turned), strict=True))
        return b.reshape(
            turned,
            [dim(sizes[x]) for x in groups[0]] + [dim(product(sizes[x] for x in g)) for g in groups[1:]],
        )

    made = b.op("matmul", arranged(x, xs, (batch, rows, inner)), arranged(y, ys, (batch, inner, columns)))
    order = [*batch, *rows, *columns]
    made = b.reshape(made, [dim(extents[label]) for label in order])
    return b.transpose(made, [order.index(label) for label in result])
