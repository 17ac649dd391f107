"""TensorFlow's ops one by one, each as a tf.function of open and of fixed dims."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import deepseek as ds
import pytest
import tensorflow as tf
from running import WHOLE, compare, random_array

Function = Callable[..., Any]
# A function, and its inputs: dtype and shape, where a letter is a dim that may be open.
CASES: dict[str, tuple[Function, list[tuple[str, str]]]] = {}
SIZES = ({"n": 3, "m": 4, "k": 5}, {"n": 1, "m": 6, "k": 2})


def case(name: str, function: Function, *inputs: str) -> None:
    """Inputs as "float32 n 4"."""
    assert name not in CASES
    CASES[name] = (function, [tuple(text.split(" ", 1)) for text in inputs])  # type: ignore[misc]


X, Y = "float32 n m 4", "float32 n m 4"
UNARY = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh digamma erf erfc exp expm1 floor is_finite is_inf "
    "is_nan lgamma log log1p log_sigmoid negative reciprocal rint round rsqrt sigmoid sign sin sinh softplus "
    "sqrt square tan tanh zeros_like ones_like"
)
for name in UNARY.split():
    case(name, getattr(tf.math, name, None) or getattr(tf, name), X)
BINARY = (
    "add atan2 divide divide_no_nan equal floordiv floormod greater greater_equal less less_equal maximum "
    "minimum multiply multiply_no_nan not_equal pow squared_difference subtract truediv truncatemod xdivy "
    "xlog1py xlogy"
)
for name in BINARY.split():
    case(name, getattr(tf.math, name, None) or getattr(tf, name), X, Y)
    case(f"{name} spread", getattr(tf.math, name, None) or getattr(tf, name), X, "float32 m 1")
for name in [
    "add",
    "floordiv",
    "floormod",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
    "truncatediv",
    "truncatemod",
]:
    case(f"{name} of ints", getattr(tf.math, name, None) or getattr(tf, name), "int32 n m", "int32+ m")
for name in ["bitwise_and", "bitwise_or", "bitwise_xor"]:
    case(name, getattr(tf.bitwise, name), "int32 n m", "int32 m")
for name in ["logical_and", "logical_or", "logical_xor"]:
    case(name, getattr(tf, name, None) or getattr(tf.math, name), "bool n m", "bool m")
case("logical_not", tf.logical_not, "bool n m")
for name in [
    "relu",
    "relu6",
    "elu",
    "selu",
    "leaky_relu",
    "gelu",
    "silu",
    "softsign",
    "softmax",
    "log_softmax",
]:
    case(name, getattr(tf.nn, name), X)
case("softmax axis 1", lambda x: tf.nn.softmax(x, axis=1), X)
case("clip", lambda x: tf.clip_by_value(x, -0.5, 0.7), X)
case("where", lambda c, x, y: tf.where(c, x, y), "bool m 1", X, Y)
case("cast", lambda x: (tf.cast(x * 3, tf.int32), tf.cast(x, tf.bool), tf.cast(x, tf.float64)), X)
case("add_n", lambda x, y: tf.add_n([x, y, x]), X, Y)

for name in ["sum", "mean", "max", "min", "prod", "logsumexp", "std", "variance", "euclidean_norm"]:
    function = getattr(tf, f"reduce_{name}", None) or getattr(tf.math, f"reduce_{name}")
    case(
        f"reduce_{name}",
        lambda x, function=function: (function(x), function(x, 1), function(x, [0, -1], True)),
        X,
    )
case("reduce_any, all", lambda x: (tf.reduce_any(x, 0), tf.reduce_all(x, [1])), "bool n m")
case("reduce over no axes", lambda x: tf.reduce_sum(x, []), X)
case("argmax, argmin", lambda x: (tf.argmax(x, 1), tf.argmin(x, 2, tf.int32)), X)
case("top_k", lambda x: tuple(tf.math.top_k(x, 2)), "float32 n 5")
case("sort", lambda x: (tf.sort(x), tf.sort(x, direction="DESCENDING"), tf.argsort(x)), "float32 n 5")
case("in_top_k", lambda t, p: tf.math.in_top_k(t, p, 2), "int32 n", "float32 n 5")
case("cumsum", lambda x: (tf.cumsum(x, 1), tf.cumsum(x, 0, exclusive=True, reverse=True)), X)
case("cumprod", lambda x: tf.math.cumprod(x, 1), X)
case("segment_sum", lambda x, i: tf.math.unsorted_segment_sum(x, i, 6), "float32 n 4", "int32 n")
case("bincount", lambda x: tf.math.bincount(x, minlength=5, maxlength=5, axis=-1), "int32 n m")

case("matmul", tf.matmul, "float32 n m", "float32 m k")
case(
    "matmul transposed",
    lambda x, y: tf.matmul(x, y, transpose_a=True, transpose_b=True),
    "float32 m n",
    "float32 k m",
)
case("matmul batched", lambda x, y: tf.matmul(x, y, transpose_b=True), "float32 n 2 m 3", "float32 2 k 3")
EQUATIONS = {
    "ij,jk->ik": ("n m", "m k"),
    "bij,bkj->bik": ("n 2 m", "n k m"),
    "bthd,bshd->bhts": ("n m 2 3", "n k 2 3"),
    "bhts,bshd->bthd": ("n 2 m k", "n k 2 3"),
    "...i,ij->...j": ("n m 4", "4 3"),
    "i,j->ij": ("n", "m"),
    "ij->ji": ("n m",),
    "ijk->k": ("n m 4",),
    "ijk,kl->il": ("n m 4", "4 3"),
    "bi,bi->b": ("n 4", "n 4"),
}
for equation, shapes in EQUATIONS.items():
    case(
        f"einsum {equation}",
        lambda *xs, equation=equation: tf.einsum(equation, *xs),
        *(f"float32 {shape}" for shape in shapes),
    )
case("tensordot", lambda x, y: tf.tensordot(x, y, [[1], [0]]), "float32 n m 4", "float32 m 3")

case("reshape", lambda x: (tf.reshape(x, [-1, 2]), tf.reshape(x, [tf.shape(x)[0], -1])), X)
case("shapes", lambda x: (tf.shape(x), tf.size(x), tf.rank(x), tf.shape(x)[1] * 2 - 1), X)
case("transpose", lambda x: (tf.transpose(x), tf.transpose(x, [1, 2, 0])), X)
case("expand, squeeze", lambda x: tf.squeeze(tf.expand_dims(tf.expand_dims(x, 1), -1), [1]), X)
case("slices", lambda x: (x[:, 1:], x[0], x[..., ::2], x[:, -1, None], x[:, ::-1], x[1:0], x[:1, :-1]), X)
case("slices beyond an open dim", lambda x: (x[:5], x[:2, ::3], x[:1] + x[:, :1]), X)
case("slice", lambda x: tf.slice(x, [0, 1, 1], [-1, 1, 2]), X)
case("a slice at a place that the run decides", lambda x, i: x[:, i[0]], X, "int32 1")
case("concat, stack", lambda x, y: (tf.concat([x, y], 1), tf.stack([x, y], 1)), X, Y)
case("split", lambda x: (*tf.split(x, 2, 2), *tf.split(x, [1, 3], -1)), X)
case("unstack", lambda x: tuple(tf.unstack(x, axis=2)), X)
case("tile, repeat", lambda x: (tf.tile(x, [1, 2, 3]), tf.repeat(x, 2, axis=1)), X)
case("broadcast_to", lambda x: tf.broadcast_to(x, [2, tf.shape(x)[0], 4]), "float32 n 1")
case("fill", lambda x: (tf.fill(tf.shape(x)[:2], 3.5), tf.zeros([tf.shape(x)[0], 2]), tf.ones_like(x)), X)
case(
    "pad",
    lambda x: (tf.pad(x, [[0, 0], [1, 2], [0, 1]]), tf.pad(x, [[0, 0]] * 2 + [[1, 1]], constant_values=7)),
    X,
)
case(
    "pad mirrored",
    lambda x: tuple(tf.pad(x, [[0, 0], [0, 0], [2, 1]], m) for m in ("REFLECT", "SYMMETRIC")),
    X,
)
case("reverse", lambda x: (tf.reverse(x, [0, 2]), tf.reverse(x, [])), X)
case("reverse_sequence", lambda x, n: tf.reverse_sequence(x, n, seq_axis=1), "float32 n 5 2", "int32 n")
case("roll", lambda x: tf.roll(x, [1, -2], [1, 2]), X)
case("space to depth", lambda x: tf.nn.space_to_depth(x, 2), "float32 n 4 6 3")
case("depth to space", lambda x: tf.nn.depth_to_space(x, 2), "float32 n 3 2 8")
case("space to batch", lambda x: tf.space_to_batch(x, [2, 2], [[1, 1], [0, 2]]), "float32 n 4 6 3")
case("batch to space", lambda x: tf.batch_to_space(x, [2, 2], [[1, 0], [0, 2]]), "float32 8 3 4 2")
case("diag", lambda x: tf.linalg.diag(x), "float32 n m")
case("band_part", lambda x: (tf.linalg.band_part(x, -1, 0), tf.linalg.band_part(x, 1, 2)), "float32 n 5 6")
case("range", lambda x: (tf.range(tf.shape(x)[0]), tf.range(1, 9, 3), tf.range(0.0, 2.0, 0.5)), "float32 n")
case("linspace", lambda x: tf.linspace(0.0, 3.0, 7) * x, "float32 1")
case("one_hot", lambda i: (tf.one_hot(i, 4), tf.one_hot(i - 1, 3, 5, 2, axis=0, dtype=tf.int32)), "int32 n m")

case("gather", lambda x, i: (tf.gather(x, i), tf.gather(x, i, axis=1)), "float32 6 6 3", "int32 n m")
case("gather batched", lambda x, i: tf.gather(x, i, batch_dims=1), "float32 n 6 3", "int32 n m")
case("gather_nd", lambda x, i: tf.gather_nd(x, i), "float32 6 6 3", "int32 n m 2")
case("scatter_nd", lambda i, x: tf.scatter_nd(i, x, [6, 3]), "int32 n 1", "float32 n 3")
case(
    "tensor_scatter_add",
    lambda x, i, u: tf.tensor_scatter_nd_add(x, i, u),
    "float32 6 3",
    "int32 n 1",
    "float32 n 3",
)

case("bias_add NCHW", lambda x, b: tf.nn.bias_add(x, b, "NCHW"), "float32 n 4 3 m", "float32 4")
case("lrn", lambda x: tf.nn.local_response_normalization(x, 2, alpha=0.3, beta=0.6), "float32 n 3 2 7")
case("l2_loss", tf.nn.l2_loss, X)
case("l2_normalize", lambda x: tf.nn.l2_normalize(x, -1), X)
case(
    "cross entropy", lambda x, y: tf.nn.softmax_cross_entropy_with_logits(y, x), "float32 n 5", "float32 n 5"
)
case(
    "sparse cross entropy",
    lambda x, i: tf.nn.sparse_softmax_cross_entropy_with_logits(i, x),
    "float32 n 5",
    "int32 n",
)
case("sigmoid cross entropy", lambda x, y: tf.nn.sigmoid_cross_entropy_with_logits(y, x), X, Y)
case(
    "batch_normalization",
    lambda x, s: tf.nn.batch_normalization(x, s, s * s, s, s, 1e-3),
    "float32 n 3 m 4",
    "float32 4",
)
for training in (False, True):
    case(
        f"fused batch norm, training {training}",
        lambda x, s, training=training: tf.compat.v1.nn.fused_batch_norm(
            x, s, s, None if training else s, None if training else s * s + 0.1, is_training=training
        ),
        "float32 n 3 m 4",
        "float32 4",
    )
case(
    "conv2d explicit padding",
    lambda x, w: tf.nn.conv2d(x, w, [1, 2, 1, 1], [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "float32 n 7 6 3",
    "float32 3 3 3 4",
)
case("conv2d of groups", lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), "float32 n 7 6 4", "float32 3 3 2 6")
case("atrous", lambda x, w: tf.nn.atrous_conv2d(x, w, 2, "VALID"), "float32 n 9 8 3", "float32 3 3 3 4")
case("max_pool open sizes", lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), "float32 n m k 4")
case(
    "convolution open sizes", lambda x, w: tf.nn.conv2d(x, w, 2, "SAME"), "float32 n m k 3", "float32 3 3 3 4"
)
for how in ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"):
    for smooth in (False, True):
        case(
            f"resize {how}, antialias {smooth}",
            lambda x, how=how, smooth=smooth: tf.image.resize(x, [9, 4], how, antialias=smooth),
            "float32 n 5 7 3",
        )
case(
    "resize by the first version",
    lambda x: tuple(
        tf.compat.v1.image.resize_images(x, [9, 4], how, corners)
        for how in (
            tf.compat.v1.image.ResizeMethod.BILINEAR,
            tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR,
        )
        for corners in (False, True)
    ),
    "float32 n 5 7 3",
)


def arrays(name: str, inputs: list[tuple[str, str]], sizes: dict[str, int]) -> list[Any]:
    made = []
    for i, (dtype, shape) in enumerate(inputs):
        dims = [sizes[word] if word in sizes else int(word) for word in shape.split()]
        seed = zlib.crc32(f"{name} {i} {sorted(sizes.items())}".encode())
        if dtype == "bool":
            made.append(random_array(dims, "int32", seed, most=2).astype(bool))
        elif dtype == "int32+":
            made.append(1 + random_array(dims, "int32", seed))
        else:
            made.append(random_array(dims, dtype, seed, most=1 + min(2, sizes["n"], sizes["m"] - 1)))
    return made


def check(name: str, opened: bool) -> None:
    function, inputs = CASES[name]
    specs = []
    for dtype, shape in inputs:
        dims = [None if opened else SIZES[0][w] if w.isalpha() else int(w) for w in shape.split()]
        dims = [d if w.isalpha() else int(w) for d, w in zip(dims, shape.split(), strict=True)]
        specs.append(tf.TensorSpec(dims, dtype.removesuffix("+")))
    traced = tf.function(function, input_signature=specs, autograph=False)
    compiled = ds.compile(traced, target="interpreter")
    for sizes in SIZES if opened else SIZES[:1]:
        given = arrays(name, inputs, sizes)
        want = traced(*map(tf.constant, given))
        compare(compiled(*given), want, f"{name} {sizes}", rtol=2e-5)


# The fixed part is a third of them; DEEPSEEK_WHOLE_SUITES=1 takes all.
@pytest.mark.parametrize("name", [name for name in CASES if WHOLE or zlib.crc32(name.encode()) % 3 == 0])
def test_op_agrees_with_tensorflow(name: str) -> None:
    check(name, opened=True)
    check(name, opened=False)
