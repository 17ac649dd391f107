"""Normalisations, softmax and losses that TensorFlow has as one op."""

from __future__ import annotations

from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, rule
from deepseek.tensorflow.rules.window import layout_of


@rule("BiasAdd")
def bias_add(b: Builder, x: Tensor, bias: Tensor) -> Value:
    if b.attr("data_format").startswith("NC"):
        bias = b.reshape(bias, [bias.shape[0]] + [1] * (len(x.shape) - 2))
    return b.op("add", x, bias)


@rule("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_norm(
    b: Builder, x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Value | None, ...]:
    attrs = {"axis": layout_of(b, len(x.shape)).index("C"), "epsilon": b.attr("epsilon")}
    rest = [None] * (len(b.node.outputs) - 3)
    if not b.attr("is_training"):
        y = b.op("batch_norm", x, scale, offset, mean, variance, **attrs)
        return y, b.value(mean), b.value(variance), *rest
    y, batch_mean, batch_variance, _ = b.ops("batch_norm_training", x, scale, offset, **attrs)
    channels = b.op("dim_value", dim=[x.shape[attrs["axis"]]], dtype="float32")
    count = b.op("div", b.op("cast", b.op("prod", b.op("shape_of", x)), dtype="float32"), channels)
    unbiased = b.op(
        "div", count, b.op("maximum", b.op("sub", count, b.scalar(1, "float32")), b.scalar(1, "float32"))
    )
    batch_variance = b.op("mul", batch_variance, unbiased)
    factor = b.attr("exponential_avg_factor")
    if factor != 1:
        batch_mean = _moved(b, mean, batch_mean, factor)
        batch_variance = _moved(b, variance, batch_variance, factor)
    return y, batch_mean, batch_variance, *rest


def _moved(b: Builder, old: Tensor, new: Tensor, factor: float) -> Value:
    step = b.op("mul", b.op("sub", new, old), b.scalar(factor, "float32"))
    return b.op("add", old, step)


@rule("Softmax")
def softmax(b: Builder, x: Tensor) -> Value:
    return b.op("softmax", x, axis=-1)


@rule("LogSoftmax")
def log_softmax(b: Builder, x: Tensor) -> Value:
    return b.op("log_softmax", x, axis=-1)


@rule("L2Loss")
def l2_loss(b: Builder, x: Tensor) -> Value:
    total = b.op("sum", b.op("mul", x, x), axes=list(range(len(x.shape))))
    return b.op("mul", total, b.scalar(0.5, total.dtype))


@rule("LRN")
def lrn(b: Builder, x: Tensor) -> Value:
    # ONNX's normalisation, whose alpha is divided by the size.
    size = 2 * b.attr("depth_radius") + 1
    attrs: dict[str, Any] = {"size": size, "alpha": b.attr("alpha") * size, "beta": b.attr("beta")}
    y = b.op("lrn", b.transpose(x, [0, 3, 1, 2]), k=b.attr("bias"), **attrs)
    return b.transpose(y, [0, 2, 3, 1])


@rule("SoftmaxCrossEntropyWithLogits")
def cross_entropy(b: Builder, logits: Tensor, labels: Tensor) -> tuple[Value, Value]:
    logarithms = b.op("log_softmax", logits, axis=-1)
    loss = b.op("neg", b.op("sum", b.op("mul", labels, logarithms), axes=[1]))
    return loss, b.op("sub", b.op("softmax", logits, axis=-1), labels)


@rule("SparseSoftmaxCrossEntropyWithLogits")
def sparse_cross_entropy(b: Builder, logits: Tensor, labels: Tensor) -> tuple[Value, Value]:
    steps = b.op("iota", shape=[1, logits.shape[1]], dtype=labels.dtype, axis=1)
    at = b.op("equal", steps, b.op("unsqueeze", labels, axes=[1]))
    zero = b.scalar(0, logits.dtype)
    loss = b.op("neg", b.op("sum", b.op("select", at, b.op("log_softmax", logits, axis=-1), zero), axes=[1]))
    return loss, b.op("sub", b.op("softmax", logits, axis=-1), b.cast(at, logits.dtype))
