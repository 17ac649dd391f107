"""Ops that move elements and compute nothing: views, slices, joins, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, axis, rule, sizes_of
from deepseek.tensorflow.shapes import Dim, Known, Size, Unsupported, dim, product, smaller


@rule("Reshape")
def reshape(b: Builder, x: Tensor, shape: Tensor) -> Value:
    sizes = b.sizes(shape, "a shape")
    if -1 in [size for size in sizes if not isinstance(size, Size)]:
        rest = product(size for size in sizes if isinstance(size, Size) or size != -1)
        total = product(sizes_of(x))
        if not isinstance(rest, Size) and rest == 0:
            raise Unsupported("a shape without both 0 and -1")
        sizes = [total // rest if not isinstance(size, Size) and size == -1 else size for size in sizes]
    return b.reshape(x, [dim(size) for size in sizes])


@rule("ExpandDims")
def expand_dims(b: Builder, x: Tensor, along: Tensor) -> Value:
    return b.op("unsqueeze", x, axes=[axis(b.ints(along, "an axis")[0], len(x.shape) + 1)])


@rule("Squeeze")
def squeeze(b: Builder, x: Tensor) -> Value:
    axes = [axis(i, len(x.shape)) for i in b.attr("squeeze_dims")]
    if not axes:
        axes = [i for i, size in enumerate(x.shape) if size == 1]
    return b.op("squeeze", x, axes=axes) if axes else b.value(x)


@rule("Transpose")
def transpose(b: Builder, x: Tensor, perm: Tensor) -> Value:
    return b.transpose(x, [axis(i, len(x.shape)) for i in b.ints(perm, "a permutation")])


@rule("BroadcastTo")
def broadcast_to(b: Builder, x: Tensor, shape: Tensor) -> Value:
    return b.op("broadcast_to", x, shape=[dim(size) for size in b.sizes(shape, "a shape")])


@rule("Fill")
def fill(b: Builder, shape: Tensor, value: Tensor) -> Value:
    return b.op("broadcast_to", value, shape=[dim(size) for size in b.sizes(shape, "a shape")])


@rule("ZerosLike", "OnesLike")
def filled_like(b: Builder, x: Tensor) -> Value:
    value = 0.0 if b.node.type == "ZerosLike" else 1.0
    return b.op("full", shape=list(x.shape), value=value, dtype=b.value(x).dtype)


@rule("Tile")
def tile(b: Builder, x: Tensor, repeats: Tensor) -> Value:
    return b.op("tile", x, repeats=[dim(size) for size in b.sizes(repeats, "repetitions")])


@rule("ReverseV2")
def reverse(b: Builder, x: Tensor, axes: Tensor) -> Value:
    along = sorted(axis(i, len(x.shape)) for i in b.ints(axes, "axes"))
    return b.op("reverse", x, axes=along) if along else b.value(x)


@rule("ReverseSequence")
def reverse_sequence(b: Builder, x: Tensor, lengths: Tensor) -> Value:
    along, batch = b.attr("seq_dim"), b.attr("batch_dim")
    value, rank = b.value(x), len(x.shape)
    counts = b.reshape(b.cast(lengths, "int64"), [n if i == batch else 1 for i, n in enumerate(x.shape)])
    steps = [n if i == along else 1 for i, n in enumerate(x.shape)]
    places = b.op("iota", shape=steps, dtype="int64", axis=along)
    turned = b.op("sub", b.op("sub", counts, b.scalar(1, "int64")), places)
    at = b.op("select", b.op("less", places, counts), turned, places)
    if rank == 0:
        return value
    return b.op("gather_elements", value, b.op("broadcast_to", at, shape=list(x.shape)), axis=along)


@rule("Roll")
def roll(b: Builder, x: Tensor, shift: Tensor, along: Tensor) -> Value:
    axes = [axis(i, len(x.shape)) for i in b.ints(along, "axes")]
    return b.op("roll", x, shifts=b.ints(shift, "shifts"), axes=axes)


@rule("ConcatV2")
def concat(b: Builder, *inputs: Tensor) -> Value:
    *parts, along = inputs
    at = axis(b.ints(along, "an axis")[0], len(parts[0].shape))
    return b.value(parts[0]) if len(parts) == 1 else b.op("concat", *parts, axis=at)


@rule("Pack")
def pack(b: Builder, *parts: Tensor) -> Value:
    return b.op("stack", *parts, axis=axis(b.attr("axis"), len(parts[0].shape) + 1))


@rule("Unpack")
def unpack(b: Builder, x: Tensor) -> tuple[Value, ...]:
    at = axis(b.attr("axis"), len(x.shape))
    return tuple(b.op("squeeze", b.slice_axis(x, at, i, i + 1), axes=[at]) for i in range(b.attr("num")))


def _cut(b: Builder, x: Tensor, at: int, sizes: Sequence[Any]) -> tuple[Value, ...]:
    parts, start = [], 0
    for length in sizes:
        parts.append(b.slice_axis(x, at, start, start + length))
        start = start + length
    return tuple(parts)


@rule("Split")
def split(b: Builder, along: Tensor, x: Tensor) -> tuple[Value, ...]:
    at, count = axis(b.ints(along, "an axis")[0], len(x.shape)), b.attr("num_split")
    return _cut(b, x, at, [sizes_of(x)[at] // count] * count)


@rule("SplitV")
def split_v(b: Builder, x: Tensor, lengths: Tensor, along: Tensor) -> tuple[Value, ...]:
    at = axis(b.ints(along, "an axis")[0], len(x.shape))
    sizes = b.sizes(lengths, "lengths")
    known = sum(size for size in sizes if isinstance(size, Size) or size != -1)
    rest = sizes_of(x)[at] - known
    return _cut(b, x, at, [rest if not isinstance(s, Size) and s == -1 else s for s in sizes])


@rule("Slice")
def slice_box(b: Builder, x: Tensor, begin: Tensor, lengths: Tensor) -> Value:
    sizes = b.sizes(lengths, "a size")
    if not isinstance(begin, Known):
        if any(not isinstance(size, Size) and size == -1 for size in sizes):
            raise Unsupported("a size that is known before the run")
        return b.op("dynamic_slice", x, b.cast(begin, "int64"), sizes=[dim(size) for size in sizes])
    starts = b.sizes(begin, "a start")
    limits = [
        whole if not isinstance(size, Size) and size == -1 else start + size
        for start, size, whole in zip(starts, sizes, sizes_of(x), strict=True)
    ]
    return b.op(
        "slice", x, starts=list(map(dim, starts)), limits=list(map(dim, limits)), steps=[1] * len(starts)
    )


def index_of(
    b: Builder, rank: int, begin: Sequence[Any], end: Sequence[Any], strides: Sequence[int]
) -> list[Any]:
    """A StridedSlice as NumPy's index: slices, ints (of axes that go) and None (of new ones).

    A start that is not known before the run stays as the number of its element of `begin` in a tuple.
    """
    masks = {name: b.attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}

    def has(name: str, i: int) -> bool:
        return bool(masks[name] >> i & 1)

    index: list[Any] = []
    taken = sum(not has("new_axis", i) and not has("ellipsis", i) for i in range(len(strides)))
    for i, step in enumerate(strides):
        if has("ellipsis", i):
            index += [slice(None)] * (rank - taken)
        elif has("new_axis", i):
            index.append(None)
        elif has("shrink_axis", i):
            index.append((i,) if begin[i] is None else begin[i])
        else:
            first = None if has("begin", i) else begin[i]
            last = None if has("end", i) else end[i]
            if (first is None and not has("begin", i)) or (last is None and not has("end", i)):
                raise Unsupported("the ends of a slice that are known before the run")
            index.append(slice(first, last, step))
    return index + [slice(None)] * (rank - sum(item is not None for item in index))


def _ends(item: slice, size: Any) -> tuple[Any, Any, int]:
    """Start, limit and step of a slice of an axis of that size.

    Ends that are numbers lie within a known size, as NumPy has it. An open dim is taken to reach the starts
    and, as almost every slice of a first element means, a limit of 1; others may lie beyond it.
    """
    step = 1 if item.step is None else item.step
    numbers = not any(isinstance(end, Size) for end in (item.start, item.stop))
    if numbers and not isinstance(size, Size):
        start, stop, step = item.indices(size)
        return start, max(stop, start) if step > 0 else min(stop, start), step

    def placed(end: Any, none: Any) -> Any:
        if end is None:
            return none
        return size + end if not isinstance(end, Size) and end < 0 else end

    if step < 0:
        return placed(item.start, size - 1), placed(item.stop, -1), step
    start, limit = placed(item.start, 0), placed(item.stop, size)
    if not isinstance(start, Size) and not isinstance(limit, Size):
        if limit <= start:
            return 0, 0, step
        limit = smaller(limit, size) if limit > 1 else limit
    return start, limit, step


@rule("StridedSlice")
def strided_slice(b: Builder, x: Tensor, begin: Tensor, end: Tensor, strides: Tensor) -> Value:
    steps = b.ints(strides, "strides")
    unknown: list[Any] = [None] * len(steps)
    first = b.sizes(begin, "") if isinstance(begin, Known) else unknown
    last = b.sizes(end, "") if isinstance(end, Known) else unknown
    index = index_of(b, len(x.shape), first, last, steps)
    value, sizes = b.value(x), sizes_of(x)
    starts, limits, jumps = [], [], []
    shape: list[Dim | None] = []  # None: an axis that goes
    dynamic: dict[int, int] = {}
    at = 0
    for item in index:
        if item is None:
            shape.append(1)
            continue
        if isinstance(item, slice):
            start, limit, step = _ends(item, sizes[at])
            length = (limit - start + step - 1) // step if step > 0 else (start - limit - step - 1) // -step
            shape.append(dim(length))
        elif isinstance(item, tuple):
            start, limit, step = 0, sizes[at], 1
            dynamic[at] = item[0]
            shape.append(None)
        else:
            start = sizes[at] + item if not isinstance(item, Size) and item < 0 else item
            limit, step = start + 1, 1
            shape.append(None)
        starts.append(start)
        limits.append(limit)
        jumps.append(step)
        at += 1
    whole = all(
        s == 0 and step == 1 for s, step in zip(starts, jumps, strict=True) if not isinstance(s, Size)
    )
    if (
        not whole
        or [dim(limit) for limit in limits] != list(x.shape)
        or any(isinstance(s, Size) for s in starts)
    ):
        value = b.op(
            "slice", value, starts=list(map(dim, starts)), limits=list(map(dim, limits)), steps=jumps
        )
    for along, i in dynamic.items():
        value = _picked(b, value, along, b.slice_axis(begin, 0, i, i + 1))
    return b.reshape(value, [size for size in shape if size is not None])


def _picked(b: Builder, x: Value, along: int, index: Value) -> Value:
    """The slice of an axis at a position that is known at run time, negative ones counted from the end."""
    return b.op("gather", x, index, axis=along)


@rule("Pad", "PadV2")
def pad(b: Builder, x: Tensor, pads: Tensor, value: Tensor | None = None) -> Value:
    low, high = _pads(b, pads)
    fill = 0.0 if value is None else float(b.number(value, "a value"))
    return b.op("pad", x, low=low, high=high, value=fill)


@rule("MirrorPad")
def mirror_pad(b: Builder, x: Tensor, pads: Tensor) -> Value:
    low, high = _pads(b, pads)
    return b.op("pad", x, low=low, high=high, mode=b.attr("mode").lower())


def _pads(b: Builder, pads: Tensor) -> tuple[list[Dim], list[Dim]]:
    sizes = b.sizes(pads, "padding")
    return [dim(size) for size in sizes[::2]], [dim(size) for size in sizes[1::2]]


@rule("SpaceToBatchND")
def space_to_batch(b: Builder, x: Tensor, block: Tensor, pads: Tensor) -> Value:
    blocks = b.ints(block, "a block")
    low, high = _pads(b, pads)
    rest = len(x.shape) - 1 - len(blocks)
    value = b.op("pad", x, low=[0, *low, *[0] * rest], high=[0, *high, *[0] * rest])
    batch, *spatial = sizes_of(value)
    apart: list[Any] = [batch]
    for size, n in zip(spatial, blocks, strict=False):
        apart += [size // n, n]
    value = b.reshape(value, [dim(size) for size in apart] + list(value.shape[1 + len(blocks) :]))
    within = [2 + 2 * i for i in range(len(blocks))]
    outer = [1 + 2 * i for i in range(len(blocks))]
    value = b.transpose(value, [*within, 0, *outer, *range(1 + 2 * len(blocks), len(value.shape))])
    merged = [dim(product(blocks) * batch), *value.shape[1 + len(blocks) :]]
    return b.reshape(value, merged)


@rule("BatchToSpaceND")
def batch_to_space(b: Builder, x: Tensor, block: Tensor, crops: Tensor) -> Value:
    blocks = b.ints(block, "a block")
    low, high = b.sizes(crops, "crops")[::2], b.sizes(crops, "crops")[1::2]
    count = len(blocks)
    batch, *spatial = sizes_of(x)
    rest = list(x.shape[1 + count :])
    value = b.reshape(x, [*blocks, dim(batch // product(blocks)), *x.shape[1:]])
    order = [count]
    for i in range(count):
        order += [count + 1 + i, i]
    value = b.transpose(value, [*order, *range(2 * count + 1, len(value.shape))])
    sizes = [size * n for size, n in zip(spatial, blocks, strict=False)]
    value = b.reshape(value, [dim(batch // product(blocks)), *map(dim, sizes), *rest])
    for i in range(count):
        value = b.slice_axis(value, 1 + i, low[i], sizes[i] - high[i])
    return value


@rule("DepthToSpace", "SpaceToDepth")
def depth_and_space(b: Builder, x: Tensor) -> Value:
    n = b.attr("block_size")
    if b.attr("data_format") != "NHWC":
        raise Unsupported("channels last")
    batch, height, width, channels = sizes_of(x)
    if b.node.type == "DepthToSpace":
        apart = [batch, height, width, n, n, channels // (n * n)]
        value = b.transpose(b.reshape(x, list(map(dim, apart))), [0, 1, 3, 2, 4, 5])
        return b.reshape(value, list(map(dim, [batch, height * n, width * n, channels // (n * n)])))
    apart = [batch, height // n, n, width // n, n, channels]
    value = b.transpose(b.reshape(x, list(map(dim, apart))), [0, 1, 3, 2, 4, 5])
    return b.reshape(value, list(map(dim, [batch, height // n, width // n, channels * n * n])))


@rule("Diag", "MatrixDiag", "MatrixDiagV2", "MatrixDiagV3")
def diagonal_matrix(b: Builder, x: Tensor, *rest: Tensor) -> Value:
    if rest and (b.ints(rest[0], "a diagonal") != [0] or b.ints(rest[1], "rows") != [-1]):
        raise Unsupported("the main diagonal of a square matrix")
    size, rank = x.shape[-1], len(x.shape)
    rows = b.op("iota", shape=[size, 1], dtype="int64", axis=0)
    columns = b.op("iota", shape=[1, size], dtype="int64", axis=1)
    zero = b.scalar(0, b.value(x).dtype)
    return b.op("select", b.op("equal", rows, columns), b.op("unsqueeze", x, axes=[rank - 1]), zero)
