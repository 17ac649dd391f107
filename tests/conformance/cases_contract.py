"""Cases of matrix products, convolutions, poolings and attention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from case import FLOATS, Array, Case, Draw, case
from torch.nn import functional as F


def operand(d: Draw, shape: list[int], dtype: str) -> Array:
    return d.integers(shape, dtype, -9, 9) if "int" in dtype else d.floats(shape, dtype)


@case("matmul")
def matmul(d: Draw) -> Case:
    m, n, k = d.size(), d.size(), d.size()
    dtype = d.one([*FLOATS, "int32", "int8", "uint8 int8"])
    batch = [d.size(1, 5) for _ in range(d.integer(0, 2))]
    left, right = [1 if d.flag() else s for s in batch], [1 if d.flag() else s for s in batch]
    left, right = left[d.integer(0, len(left)) :], right[d.integer(0, len(right)) :]
    of_a, of_b = dtype.split() if " " in dtype else (dtype, dtype)
    a = operand(d, [k] if d.integer(0, 4) == 0 and not left else [*left, m, k], of_a)
    b = operand(d, [k] if d.integer(0, 4) == 0 and not right else [*right, k, n], of_b)

    def expect(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, y) if of_a == of_b else torch.matmul(x.int(), y.int())

    return Case([a, b], {}, expect, 20, symbolic=[(0, a.ndim - 1), (1, max(b.ndim - 2, 0))])


@case("linear")
def linear(d: Draw) -> Case:
    inputs, outputs, dtype = d.size(), d.size(), d.dtype()
    x = d.floats([*d.shape((0, 1, 2), elements=200), inputs], dtype)
    parts = [x, d.floats([outputs, inputs], dtype)]
    if d.flag():
        parts.append(d.floats([outputs], dtype))
    return Case(
        parts, {}, lambda t, w, b=None: F.linear(t, w, b), 20, symbolic=[(0, 0)] if x.ndim > 1 else []
    )


@case("gemm")
def gemm(d: Draw) -> Case:
    m, n, k, dtype = d.size(), d.size(), d.size(), d.dtype()
    ta, tb = d.flag(), d.flag()
    alpha, beta = d.one([1.0, 0.5]), d.one([1.0, 2.0, 0.0])
    parts = [d.floats([k, m] if ta else [m, k], dtype), d.floats([n, k] if tb else [k, n], dtype)]
    if d.flag():
        parts.append(d.floats(d.one([[n], [1], [m, n], [m, 1], []]), dtype))

    def expect(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        y = alpha * ((a.T if ta else a) @ (b.T if tb else b))
        return y if c is None else y + beta * c

    attrs = {"alpha": alpha, "beta": beta, "transpose_a": ta, "transpose_b": tb}
    symbolic = [(0, 1 if ta else 0)] if len(parts) == 2 else []
    return Case(parts, attrs, expect, 20, symbolic=symbolic)


# -- convolution -------------------------------------------------------------------------------------------


def conv_by_definition(
    x: torch.Tensor, w: torch.Tensor, attrs: dict[str, Any], groups: int, batch_groups: int
) -> torch.Tensor:
    """x [N, C, ...], w [O, I, ...] by padding, dilating and torch's convolution; batch groups apart."""
    count = x.ndim - 2
    for i in range(count):
        axis, gap = 2 + i, attrs["input_dilation"][i]
        if gap > 1 and x.shape[axis] > 0:
            size = x.shape[axis]
            shape = list(x.shape)
            shape[axis] = (size - 1) * gap + 1
            x = torch.zeros(shape, dtype=x.dtype).index_copy(axis, torch.arange(size) * gap, x)
    amounts = [[attrs["pad_low"][i], attrs["pad_high"][i]] for i in reversed(range(count))]
    x = F.pad(x, list(itertools.chain(*amounts)))
    if batch_groups > 1:
        parts = [
            conv_by_definition_plain(a, b, attrs, 1)
            for a, b in zip(torch.chunk(x, batch_groups, 0), torch.chunk(w, batch_groups, 0), strict=True)
        ]
        return torch.cat(parts, 1)
    return conv_by_definition_plain(x, w, attrs, groups)


def conv_by_definition_plain(
    x: torch.Tensor, w: torch.Tensor, attrs: dict[str, Any], groups: int
) -> torch.Tensor:
    count = x.ndim - 2
    fn = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[count]
    integral = not x.is_floating_point()
    y = fn(x.double(), w.double(), None, attrs["strides"], 0, attrs["kernel_dilation"], groups)
    return y.long() if integral else y


def shuffled(d: Draw, letters: str, count: int) -> str:
    plain = letters + "".join(map(str, range(count)))
    if d.flag():
        return plain
    return "".join(plain[i] for i in d.permutation(len(plain)))


PLACES = ("pad_low", "pad_high", "input_dilation", "kernel_dilation", "strides")


def positions(size: int, low: int, high: int, gap: int, dilation: int, stride: int, taps: int) -> int:
    """Of a window along a dim."""
    space = ((size - 1) * gap + 1 if size > 0 else 0) + low + high
    reach = (taps - 1) * dilation + 1
    return max(space - reach + stride, 0) // stride


@case("conv")
def conv(d: Draw) -> Case:
    count = d.one([1, 2, 2, 2, 3])
    groups, batch_groups = d.one([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2)])
    per_in, per_out, batch = d.integer(1, 5), d.integer(1, 9), d.integer(1, 2) * batch_groups
    lacks = d.one(["", "", "", "", "", "positions", "batch", "channels", "filters"])
    if lacks == "batch":
        batch = 0
    elif lacks == "channels":
        per_in = 0
    elif lacks == "filters":
        per_out = 0
    channels, made = per_in * groups, per_out * groups * batch_groups
    most = 3 if count == 3 else 5
    attrs: dict[str, Any] = {
        "strides": [d.one([1, 1, 2, 3]) for _ in range(count)],
        "pad_low": [d.integer(-1, 3) for _ in range(count)],
        "pad_high": [d.integer(-1, 3) for _ in range(count)],
        "input_dilation": [d.one([1, 1, 1, 2, 3]) for _ in range(count)],
        "kernel_dilation": [d.one([1, 1, 2]) for _ in range(count)],
    }
    taps = [d.integer(1, most) for _ in range(count)]
    spatial = []
    for i in range(count):
        # As large as the window at least: beyond that torch refuses, where ours has no positions.
        reach = (taps[i] - 1) * attrs["kernel_dilation"][i] + 1
        least = reach - attrs["pad_low"][i] - attrs["pad_high"][i]
        gap = attrs["input_dilation"][i]
        spatial.append(max(1, -(-(least - 1) // gap) + 1, 3) + d.integer(0, 6))
    if lacks == "positions":
        spatial[d.integer(0, count - 1)] = d.integer(0, 2)
    places = [
        positions(size, *(attrs[name][i] for name in PLACES), taps[i]) for i, size in enumerate(spatial)
    ]
    layouts = [shuffled(d, letters, count) for letters in ("NC", "OI", "NC")]
    plain = "NC" + "".join(map(str, range(count)))
    dtype = d.one(["float32", "float32", "float32", "float64", "bfloat16", "int32", "uint8"])
    x = operand(d, [dict(zip(plain, [batch, channels, *spatial], strict=True))[c] for c in layouts[0]], dtype)
    dtype = "int8" if dtype == "uint8" else dtype
    sizes = dict(zip("OI" + plain[2:], [made, per_in, *taps], strict=True))
    w = operand(d, [sizes[c] for c in layouts[1]], dtype)

    def expect(tx: torch.Tensor, tw: torch.Tensor) -> torch.Tensor:
        tx = tx.permute([layouts[0].index(c) for c in plain])
        tw = tw.permute([layouts[1].index(c) for c in "OI" + plain[2:]])
        if 0 in (tx.numel(), tw.numel(), *places):  # torch refuses most of these
            nothing = 0 * (tx.sum() + tw.sum())
            y = nothing + torch.zeros([batch // batch_groups, made, *places], dtype=nothing.dtype)
        else:
            y = conv_by_definition(tx, tw, attrs, groups, batch_groups)
        return y.permute([plain.index(c) for c in layouts[2]])

    given = attrs | {"feature_groups": groups, "batch_groups": batch_groups}
    if layouts != [plain, "OI" + plain[2:], plain]:
        given |= dict(zip(["input_layout", "kernel_layout", "output_layout"], layouts, strict=True))
    symbolic = [(0, layouts[0].index(d.one("N01"[: count + 1])))] if batch_groups == 1 else []
    return Case([x, w], given, expect, 20, symbolic=symbolic)


@case("conv_transpose")
def conv_transpose(d: Draw) -> Case:
    count, groups = d.one([1, 2, 2]), d.one([1, 1, 2])
    inputs, outputs = groups * d.one([1, 2, 4, 9, 17]), d.one([1, 2, 4, 33])
    strides = [d.integer(1, 4) for _ in range(count)]
    dilation = [d.one([1, 1, 2]) for _ in range(count)]
    taps = [d.integer(1, 5) for _ in range(count)]
    padding = [d.integer(0, min(1, t - 1)) for t in taps]
    extra = [d.integer(0, s - 1) for s in strides]
    spatial = [d.integer(2, 6) for _ in range(count)]
    x = d.floats([d.one([0, 1, 1, 2, 2]), inputs, *spatial])
    w = d.floats([inputs, outputs, *taps])
    fn = F.conv_transpose1d if count == 1 else F.conv_transpose2d

    def expect(tx: torch.Tensor, tw: torch.Tensor) -> torch.Tensor:
        return fn(tx, tw, None, strides, padding, extra, groups, dilation)

    attrs = {
        "strides": strides,
        "pad_low": padding,
        "pad_high": padding,
        "output_padding": extra,
        "dilation": dilation,
        "groups": groups,
    }
    return Case([x, w], attrs, expect, 20, symbolic=[(0, d.one([0, 2]))])


# -- pools -------------------------------------------------------------------------------------------------


def window(d: Draw, count: int) -> tuple[dict[str, Any], list[int]]:
    """Attributes of a pool and spatial sizes that it fits."""
    taps = [d.integer(1, 3) for _ in range(count)]
    attrs: dict[str, Any] = {
        "window": taps,
        "strides": [d.integer(1, 3) for _ in range(count)],
        "pad_low": [d.integer(0, t // 2) for t in taps],
        "pad_high": [d.integer(0, t // 2) for t in taps],
        "dilation": [d.integer(1, 2) for _ in range(count)],
    }
    reach = [(t - 1) * k + 1 for t, k in zip(taps, attrs["dilation"], strict=True)]
    return attrs, [r + d.integer(0, 7) for r in reach]


def windows(x: torch.Tensor, attrs: dict[str, Any], fill: float) -> torch.Tensor:
    """[N, C, positions..., taps...] with `fill` outside."""
    count = x.ndim - 2
    amounts = [[attrs["pad_low"][i], attrs["pad_high"][i]] for i in reversed(range(count))]
    x = F.pad(x, list(itertools.chain(*amounts)), value=fill)
    for i in range(count):
        step, gap = attrs["strides"][i], attrs["dilation"][i]
        x = x.unfold(2 + i, (attrs["window"][i] - 1) * gap + 1, step)[..., ::gap]
    return x


@case("max_pool", "max_pool_with_indices", "max_pool_indices", "sum_pool", "avg_pool")
def pool(d: Draw) -> Case:
    count = d.one([1, 2, 2, 3])
    attrs, spatial = window(d, count)
    shape = [d.one([0, 1, 1, 2, 2]), d.one([0, 1, 2, 3, 3]), *spatial]
    if d.op in ("sum_pool", "avg_pool"):
        x = d.floats(shape, d.dtype())
    else:
        x = d.distinct(shape) if d.flag() else d.integers(shape, "int32", -2, 2)
    axes = list(range(-count, 0))
    symbolic = [(0, d.integer(0, 2))]
    if d.op == "avg_pool":
        include = d.flag()
        uncounted = [d.integer(0, h) for h in attrs["pad_high"]] if include else [0] * count
        given = attrs | {"count_include_pad": include, "uncounted_high": uncounted}

        def average(t: torch.Tensor) -> torch.Tensor:
            ones = torch.ones_like(t)
            if include:
                reversed_axes = list(reversed(range(count)))
                counted = [[attrs["pad_low"][i], attrs["pad_high"][i] - uncounted[i]] for i in reversed_axes]
                rest = [[0, uncounted[i]] for i in reversed_axes]
                ones = F.pad(ones, list(itertools.chain(*counted)), value=1.0)
                ones = F.pad(ones, list(itertools.chain(*rest)))
                counts = windows(ones, attrs | {"pad_low": [0] * count, "pad_high": [0] * count}, 0).sum(axes)
            else:
                counts = windows(ones, attrs, 0).sum(axes)
            return windows(t, attrs, 0).sum(axes) / counts

        return Case([x], given, average, 10, symbolic=symbolic)
    if d.op == "sum_pool":
        return Case([x], attrs, lambda t: windows(t, attrs, 0).sum(axes), 10, symbolic=symbolic)

    def maximum(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fill = -1e9 if t.is_floating_point() else -1000
        taps = windows(t, attrs, fill).flatten(-count)
        numbers = torch.arange(int(np.prod(spatial))).reshape(1, 1, *spatial).expand(t.shape)
        places = windows(numbers, attrs, -1).flatten(-count)
        y = taps.amax(-1)
        chosen = torch.where(taps == y.unsqueeze(-1), places, 10**9)
        return y, chosen.amin(-1)

    if d.op == "max_pool_indices":
        y = maximum(torch.tensor(np.array(x, order="C")))[0].numpy().astype(x.dtype)
        return Case([x, y], attrs, lambda t, _: maximum(t)[1], symbolic=[(0, 1), (1, 1)], differentiable=[])
    return Case([x], attrs, lambda t: maximum(t) if "indices" in d.op else maximum(t)[0], symbolic=symbolic)


@case("sum_pool_grad", "avg_pool_grad", "max_pool_grad")
def pool_gradient(d: Draw) -> Case:
    count = d.one([1, 2, 2])
    attrs, spatial = window(d, count)
    shape = [d.one([0, 1, 1, 2, 2]), d.one([0, 1, 2, 3, 3]), *spatial]
    x = torch.tensor(np.array(d.distinct(shape), order="C")).double().requires_grad_()
    axes = list(range(-count, 0))
    taps = windows(x, attrs, -1e9 if d.op == "max_pool_grad" else 0)
    if d.op == "max_pool_grad":
        y = taps.amax(axes)
        places = windows(torch.arange(int(np.prod(spatial))).reshape(1, 1, *spatial).expand(shape), attrs, -1)
        chosen = torch.where(taps == y.reshape(*y.shape, *[1] * count), places, 10**9).amin(axes)
    else:
        y = taps.sum(axes)
        if d.op == "avg_pool_grad":
            y = y / windows(torch.ones_like(x), attrs, 0).sum(axes)
    dy = d.floats(list(y.shape))
    inputs = [dy, chosen.numpy()] if d.op == "max_pool_grad" else [dy]

    def expect(t: torch.Tensor, _: torch.Tensor | None = None) -> torch.Tensor:
        return torch.autograd.grad(y, x, t, create_graph=True)[0]

    symbolic = [(i, 0) for i in range(len(inputs))]
    return Case(
        inputs,
        attrs | {"shape": shape},
        expect,
        10,
        symbolic=symbolic,
        symbolic_attrs={"shape": ["N", *shape[1:]]},
    )


@case("adaptive_avg_pool", "adaptive_max_pool")
def adaptive(d: Draw) -> Case:
    count = d.one([1, 2])
    size = [d.integer(1, 5) for _ in range(count)]
    shape = [d.integer(1, 2), d.integer(1, 3), *[d.integer(1, 9) for _ in range(count)]]
    x = d.floats(shape) if "avg" in d.op else d.distinct(shape)
    kind = "avg" if "avg" in d.op else "max"
    fn = getattr(F, f"adaptive_{kind}_pool{count}d")
    return Case([x], {"size": size}, lambda t: fn(t, size), 10, symbolic=[(0, d.one([0, 2]))])


# -- attention ---------------------------------------------------------------------------------------------


@case("attention")
def attention(d: Draw) -> Case:
    batch, groups, each = d.integer(1, 2), d.integer(1, 2), d.integer(1, 3)
    queries, keys, size, width = d.size(1, 17), d.size(1, 17), d.size(1, 16), d.size(1, 16)
    dtype = d.one(["float32", "float32", "float64", "bfloat16"])
    q = d.floats([batch, groups * each, queries, size], dtype)
    k, v = d.floats([batch, groups, keys, size], dtype), d.floats([batch, groups, keys, width], dtype)
    inputs = [q, k, v]
    kind = d.one(["none", "bool", "float"])
    if kind == "bool":
        inputs.append(d.bools([d.one([1, batch]), 1, queries, keys]))
    if kind == "float":
        inputs.append(d.floats([1, d.one([1, groups * each]), queries, keys], dtype))
    causal, offset, cap = d.flag(), d.integer(0, 3), d.one([0.0, 0.0, 2.0])
    scale = d.one([0.0, 0.3])

    def expect(
        tq: torch.Tensor, tk: torch.Tensor, tv: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        tk, tv = tk.repeat_interleave(each, 1), tv.repeat_interleave(each, 1)
        scores = tq @ tk.transpose(-1, -2) * (scale or size**-0.5)
        if cap:
            scores = cap * torch.tanh(scores / cap)
        if mask is not None:
            scores = torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else scores + mask
        if causal:
            allowed = torch.arange(keys) <= torch.arange(queries).unsqueeze(1) + offset
            scores = torch.where(allowed, scores, -torch.inf)
        blind = (scores == -torch.inf).all(-1, keepdim=True)
        weights = torch.softmax(torch.where(blind, 0.0, scores), -1)
        return torch.where(blind, 0.0, weights) @ tv

    attrs = {"causal": causal, "causal_offset": offset, "softcap": cap, "scale": scale}
    symbolic = [(1, 2), (2, 2)] + ([(3, 3)] if kind != "none" else [])
    return Case(inputs, attrs, expect, 10, symbolic=symbolic, differentiable=[0, 1, 2])


@case("rope")
def rope(d: Draw) -> Case:
    length, half, dtype = d.size(1, 8), d.integer(1, 5), d.dtype()
    x = d.floats([d.integer(1, 2), d.integer(1, 3), length, 2 * half + d.integer(0, 3)], dtype)
    cosine, sine = d.floats([length, half], dtype), d.floats([length, half], dtype)
    interleaved = d.flag()

    def expect(t: torch.Tensor, c: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        head, rest = t[..., : 2 * half], t[..., 2 * half :]
        a, b = (head[..., ::2], head[..., 1::2]) if interleaved else (head[..., :half], head[..., half:])
        real, imaginary = a * c - b * s, a * s + b * c
        y = (
            torch.stack([real, imaginary], -1).flatten(-2)
            if interleaved
            else torch.cat([real, imaginary], -1)
        )
        return torch.cat([y, rest], -1)

    return Case([x, cosine, sine], {"interleaved": interleaved}, expect, 4, symbolic=[(0, 0)])


@case("expert_matmul", "expert_matmul_weights")
def experts(d: Draw) -> Case:
    rows, k, n, count = d.size(), d.size(), d.size(), d.integer(1, 5)
    index = np.array([d.integer(0, count) for _ in range(rows)], d.one(["int32", "int64"]))  # `count`: none
    x = d.floats([rows, k])
    if d.op == "expert_matmul":

        def expect(x: torch.Tensor, w: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
            none = torch.zeros((1, *w.shape[1:]), dtype=w.dtype)
            return torch.bmm(x.unsqueeze(1), torch.cat([w, none])[i.long()]).squeeze(1)

        w = d.floats([count, k, n])
        return Case([x, w, index], {}, expect, 20, symbolic=[(0, 0), (2, 0)], differentiable=[0, 1])

    def expect_weights(x: torch.Tensor, y: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        outer = x.unsqueeze(2) * y.unsqueeze(1)
        return torch.zeros((count + 1, k, n), dtype=x.dtype).index_add(0, i.long(), outer)[:count]

    y = d.floats([rows, n])
    symbolic = [(0, 0), (1, 0), (2, 0)]
    return Case(
        [x, y, index], {"experts": [count]}, expect_weights, 20, symbolic=symbolic, differentiable=[0, 1]
    )


@case("squared_distance")
def squared_distance(d: Draw) -> Case:
    batch, m, n, k = [d.integer(1, 3)] * d.integer(0, 1), d.size(), d.size(), d.size()
    a, b = d.floats([*batch, m, k]), d.floats([*batch, n, k])

    def expect(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x.unsqueeze(-2) - y.unsqueeze(-3)) ** 2).sum(-1)

    return Case([a, b], {}, expect, 20, symbolic=[(0, a.ndim - 2)])
