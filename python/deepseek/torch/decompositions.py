"""ATen ops that PyTorch's core table leaves whole, written in ops that we have.

`BORROWED` names those for which PyTorch itself has a decomposition; the rest is written out, each after
ATen's documentation of the op: here, and in distances.py, histograms.py, matrices.py and special.py.
Backward ops are those that autograd leaves in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.fx.experimental.symbolic_shapes import guard_or_false
from torch.nn import functional

aten = torch.ops.aten

BORROWED = (
    aten.linalg_vector_norm.default,
    aten.dist.default,
    aten.ldexp.Tensor,
    aten.addmv.default,
    aten.unbind_copy.int,
    aten.permute_copy.default,
    aten.narrow_copy.default,
    aten.batch_norm_backward.default,
    aten._batch_norm_with_update_functional.default,
    aten.rrelu_with_noise_backward.default,
)

OURS: dict[Any, Callable[..., Any]] = {}


def decomposition(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for target in targets:
            OURS[target] = function
        return function

    return register


def table() -> dict[Any, Callable[..., Any]]:
    return {op: decomposition_table[op] for op in BORROWED} | OURS


# -- writes at computed positions


@decomposition(aten.put.default)
def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat: Tensor = aten.index_put.default(x.flatten(), [index.flatten()], source.flatten(), accumulate)
    return flat.reshape(x.shape)


@decomposition(aten.take.default)
def _take(x: Tensor, index: Tensor) -> Tensor:
    flat: Tensor = aten.index.Tensor(x.flatten(), [index.flatten()])
    return flat.reshape(index.shape)


def _slices_differ(x: Tensor, dim: int, source: Tensor) -> bool:
    """Whether slices across `dim` are of two shapes. Then PyTorch is left the op, which raises its error,
    although one of them might broadcast to the other.
    """
    if x.dim() != source.dim():
        return True
    rest = (axis for axis in range(x.dim()) if axis != dim % x.dim())
    return any(guard_or_false(x.shape[axis] != source.shape[axis]) for axis in rest)


@decomposition(aten.index_add.default)
def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Any:
    if _slices_differ(x, dim, source):
        return NotImplemented
    return decomposition_table[aten.index_add.default](x, dim, index, source, alpha=alpha)


@decomposition(aten.index_reduce.default)
def _index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    if _slices_differ(x, dim, source):
        return NotImplemented
    if x.dim() == 0:
        y: Tensor = _index_reduce(
            x.reshape(1), 0, index.reshape(-1), source.reshape(-1), reduce, include_self=include_self
        )
        return y.reshape(())
    shape = [1] * x.dim()
    shape[dim] = -1
    spread = index.reshape(shape).expand(source.shape)
    name = {"prod": "prod", "mean": "mean", "amax": "amax", "amin": "amin"}[reduce]
    return torch.scatter_reduce(x, dim, spread, source, name, include_self=include_self)


# -- weights as length and direction


@decomposition(aten._weight_norm_interface_backward.default)
def _weight_norm_backward(dw: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of w = g v / |v|, the norm taken over all axes but `dim`."""
    along = (dw * v).sum([i for i in range(v.dim()) if i != dim], keepdim=True) / norms
    return g / norms * (dw - v * (along / norms)), along


# -- layers


@decomposition(aten._transformer_encoder_layer_fwd.default)
def _transformer_encoder_layer(
    x: Tensor,
    features: int,
    heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    projection_weight: Tensor,
    projection_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    epsilon: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Any:
    """Of nn.TransformerEncoderLayer outside training.

    The mask tells what is left out: of type 0 [T, T], of type 1 [batch, T], of type 2 [batch, heads, T, T].
    Rows of which nothing is left are NaN.
    """
    if x.is_nested or x.dim() != 3:
        return NotImplemented
    batch, length, _ = x.shape
    if mask is not None:
        shape = {0: (1, 1, length, length), 1: (batch, 1, 1, length)}.get(mask_type or 0)
        mask = mask.to(torch.bool) if shape is None else mask.to(torch.bool).reshape(shape)

    def attention(x: Tensor) -> Tensor:
        qkv = functional.linear(x, qkv_weight, qkv_bias)
        q, k, v = qkv.reshape(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind()
        scores = q @ k.mT / math.sqrt(features // heads)
        if mask is not None:
            scores = scores.masked_fill(mask, -math.inf)
        y = scores.softmax(-1) @ v
        y = y.transpose(1, 2).reshape(batch, length, features)
        return functional.linear(y, projection_weight, projection_bias)

    def feed_forward(x: Tensor) -> Tensor:
        inner = functional.linear(x, weight_1, bias_1)
        inner = functional.gelu(inner) if use_gelu else inner.relu()
        return functional.linear(inner, weight_2, bias_2)

    def norm_1(x: Tensor) -> Tensor:
        return functional.layer_norm(x, [features], norm_weight_1, norm_bias_1, epsilon)

    def norm_2(x: Tensor) -> Tensor:
        return functional.layer_norm(x, [features], norm_weight_2, norm_bias_2, epsilon)

    if norm_first:
        x = x + attention(norm_1(x))
        return x + feed_forward(norm_2(x))
    x = norm_1(x + attention(x))
    return norm_2(x + feed_forward(x))


# -- padding


@decomposition(
    aten.replication_pad1d_backward.default,
    aten.replication_pad2d_backward.default,
    aten.replication_pad3d_backward.default,
)
def _replication_pad_backward(dy: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    dx = dy
    for i in range(len(padding) // 2):
        axis = dy.dim() - 1 - i
        size = x.shape[axis]
        source = torch.clamp(torch.arange(dy.shape[axis]) - padding[2 * i], 0, size - 1)
        shape = list(dx.shape)
        shape[axis] = size
        dx = torch.zeros(shape, dtype=dx.dtype).index_add(axis, source, dx)
    return dx


# -- places


@decomposition(aten.nonzero_static.default)
def _nonzero_static(x: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` coordinates of what is not zero, filled up with `fill_value`."""
    if x.numel() == 0 or x.dim() == 0:
        inside = (x.reshape(-1) != 0).to(torch.int64)
        count = inside.sum() if x.dim() == 0 else torch.zeros((), dtype=torch.int64)
        rows = torch.zeros((size, x.dim()), dtype=torch.int64)
        if x.dim() == 0:
            return rows
        return torch.where(torch.arange(size).unsqueeze(1) < count, rows, fill_value)
    flat = x.reshape(-1) != 0
    order = flat.to(torch.int64).cumsum(0) - 1
    row = torch.where(flat & (order < size), order, size)
    position = torch.full((size + 1,), -1, dtype=torch.int64)
    position = position.scatter(0, row, torch.arange(flat.shape[0]))[:size]
    columns, rest = [], position
    for extent in reversed(x.shape):
        columns.append(rest % extent)
        rest = rest // extent
    found = torch.stack(columns[::-1], 1)
    return torch.where((position < 0).unsqueeze(1), fill_value, found)


@decomposition(aten.masked_scatter_backward.default)
def _masked_scatter_backward(dy: Tensor, mask: Tensor, sizes: Sequence[int]) -> Tensor:
    count = math.prod(sizes)
    flat = mask.expand(dy.shape).reshape(-1)
    order = flat.to(torch.int64).cumsum(0) - 1
    row = torch.where(flat, order, count)
    taken = dy.new_zeros(max(count, dy.numel()) + 1).scatter(0, row, dy.reshape(-1))
    return taken[:count].reshape(list(sizes))


@decomposition(aten.angle.default)
def _angle(x: Tensor) -> Any:
    if x.is_complex():
        return NotImplemented
    wide = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    zero = torch.zeros_like(wide)
    return torch.where(wide.isnan(), wide, torch.where(wide < 0, zero + math.pi, zero))


# -- random numbers


@decomposition(aten.normal.Tensor_Tensor, aten.normal.Tensor_float, aten.normal.float_Tensor)
def _normal(mean: Any, std: Any = 1.0, *, generator: torch.Generator | None = None) -> Any:
    """Standard draws, which come from PyTorch's generator, stretched and shifted."""
    if generator is not None:
        return NotImplemented
    if isinstance(std, Tensor):
        aten._assert_async.msg((std >= 0).all(), "normal expects all elements of std >= 0.0")
    return torch.randn_like(mean + std, memory_format=torch.contiguous_format) * std + mean


# -- bits


@decomposition(aten.hash_tensor.default)
def _hash_tensor(x: Tensor, dim: Sequence[int] = (), *, keepdim: bool = False, mode: int = 0) -> Any:
    """The exclusive or of the elements' 64 bits: halves of the elements by each other until one is left."""
    if any(not isinstance(size, int) for size in x.shape):
        return NotImplemented
    along = sorted({axis % max(x.dim(), 1) for axis in dim} or range(x.dim()))
    bits = x.double().view(torch.int64) if x.is_floating_point() else x.to(torch.int64)
    if x.dim():
        rest = [axis for axis in range(x.dim()) if axis not in along]
        bits = bits.permute(*rest, *along).flatten(len(rest))
        while bits.shape[-1] > 1:
            half = (bits.shape[-1] + 1) // 2
            other = torch.constant_pad_nd(bits[..., half:], [0, 2 * half - bits.shape[-1]])
            bits = bits[..., :half] ^ other
        bits = bits.sum(-1)
        if keepdim:
            bits = bits.reshape([1 if axis in along else size for axis, size in enumerate(x.shape)])
    return bits.view(torch.uint64)


@decomposition(aten.repeat_interleave.Tensor)
def repeat_interleave(repeats: Tensor, *, output_size: int | None = None) -> Tensor:
    """Each position as often as `repeats` says. Without their sum the result's size is not known."""
    if output_size is None:
        return NotImplemented  # type: ignore[no-any-return]
    torch._assert_async(repeats.sum() == output_size, "repeat_interleave: output_size is not their sum")
    return torch.searchsorted(repeats.cumsum(0), torch.arange(output_size), right=True).to(repeats.dtype)


@decomposition(aten.multinomial.default)
def multinomial(
    p: Tensor, count: int, replacement: bool = False, *, generator: torch.Generator | None = None
) -> Tensor:
    """Where p / e is largest, for e drawn from an exponential distribution: as eager PyTorch chooses."""
    alike = count > 1 and p.dtype not in (torch.float32, torch.float64)  # quotients, often equal when short
    if (replacement and count > 1) or alike or generator is not None:
        return NotImplemented  # type: ignore[no-any-return]
    valid = "probability tensor contains either `inf`, `nan` or element < 0"
    torch._assert_async((p.amax() < math.inf) & (p.amin() >= 0), valid)
    torch._assert_async(
        (p.sum(-1) != 0).all(), "invalid multinomial distribution (sum of probabilities <= 0)"
    )
    quotients: Tensor = p / aten.exponential.default(p, 1.0)
    if count == 1:
        return quotients.argmax(-1, keepdim=True)
    return quotients.topk(count).indices
