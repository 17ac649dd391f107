"""Resizing by interpolation as products with a matrix for each axis: y = M x along the axis.

PyTorch decomposes most of these forward passes into gathers; the antialiased ones, nearest neighbours and all
gradients (products with M's transpose) are here. Conventions: ATen's UpSample.h. Element i of n is the point
i + 0.5 on [0, n]; with align_corners it is the point i on [0, n - 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

aten = torch.ops.aten

Size = int  # or torch.SymInt, which behaves as one

# A of Keys' cubic convolution ("Cubic convolution interpolation for digital image processing", 1981).
CUBIC = -0.75
CUBIC_ANTIALIASED = -0.5


def _ratio(source: Size, result: Size, align_corners: bool, scale: float | None) -> float:
    """How far one step of the result goes in the source."""
    if align_corners:
        return (source - 1) / (result - 1) if result > 1 else 0.0
    return 1 / scale if scale is not None and scale > 0 else source / result


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _hot(index: torch.Tensor, source: Size) -> torch.Tensor:
    """[result, source]: where the column is the row's index."""
    return index.unsqueeze(1) == torch.arange(source)


def _nearest_index(source: Size, result: Size, scale: float | None, exact: bool) -> torch.Tensor:
    if scale is not None and result == 2 * source:
        scale = None  # as ATen
    points = (torch.arange(result) + (0.5 if exact else 0.0)) * _ratio(source, result, False, scale)
    return points.floor().to(torch.int64).clamp(max=source - 1)


def _nearest(source: Size, result: Size, scale: float | None, exact: bool) -> torch.Tensor:
    return _hot(_nearest_index(source, result, scale, exact), source).to(torch.float32)


def _linear(
    source: Size, result: Size, ratio: float, align_corners: bool, dtype: torch.dtype
) -> torch.Tensor:
    points = torch.arange(result, dtype=dtype)
    points = points * ratio if align_corners else ((points + 0.5) * ratio - 0.5).clamp(min=0)
    first = points.floor().to(torch.int64).clamp(max=source - 1)
    share = (points - first).clamp(max=1).unsqueeze(1)
    second = (first + 1).clamp(max=source - 1)
    return _hot(first, source) * (1 - share) + _hot(second, source) * share


def _bicubic(
    source: Size, result: Size, ratio: float, align_corners: bool, dtype: torch.dtype
) -> torch.Tensor:
    points = torch.arange(result, dtype=dtype)
    points = points * ratio if align_corners else (points + 0.5) * ratio - 0.5
    first = points.floor()
    share = points - first
    matrix = torch.zeros((), dtype=dtype)
    for tap in range(-1, 3):
        index = (first.to(torch.int64) + tap).clamp(0, source - 1)
        matrix = matrix + _hot(index, source) * _cubic(share - tap, CUBIC).unsqueeze(1)
    return matrix


def _antialiased(source: Size, result: Size, ratio: float, cubic: bool, dtype: torch.dtype) -> torch.Tensor:
    """As Pillow: the filter is as wide as a step of the result, and its weights sum to one."""
    reach = 2.0 if cubic else 1.0
    support, shrink = (reach * ratio, 1 / ratio) if ratio >= 1 else (reach, 1.0)
    centre = (torch.arange(result, dtype=dtype).unsqueeze(1) + 0.5) * ratio
    place = torch.arange(source, dtype=dtype)
    low = (centre - support + 0.5).to(torch.int64).clamp(min=0)
    high = (centre + support + 0.5).to(torch.int64).clamp(max=source)
    distance = (place - centre + 0.5) * shrink
    weight = _cubic(distance, CUBIC_ANTIALIASED) if cubic else (1 - distance.abs()).clamp(min=0)
    weight = torch.where((place >= low) & (place < high), weight, torch.zeros_like(weight))
    return weight / weight.sum(1, keepdim=True)


# [result, source] for sizes, align_corners, the scale that the caller named and the dtype to compute in.
Matrix = Callable[[Size, Size, bool, float | None, torch.dtype], torch.Tensor]

MATRICES: dict[str, Matrix] = {
    "nearest": lambda n, m, _, s, t: _nearest(n, m, s, exact=False),
    "_nearest_exact": lambda n, m, _, s, t: _nearest(n, m, s, exact=True),
    "linear": lambda n, m, align, s, t: _linear(n, m, _ratio(n, m, align, s), align, t),
    "cubic": lambda n, m, align, s, t: _bicubic(n, m, _ratio(n, m, align, s), align, t),
    "linear_aa": lambda n, m, align, s, t: _antialiased(n, m, _ratio(n, m, align, s), cubic=False, dtype=t),
    "cubic_aa": lambda n, m, align, s, t: _antialiased(n, m, _ratio(n, m, align, s), cubic=True, dtype=t),
}


def _precise(dtype: torch.dtype) -> torch.dtype:
    """What ATen computes positions in; how they are rounded decides which elements are taken."""
    return dtype if dtype is torch.float64 else torch.float32


def _along(x: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
    """Each line of x along an axis times the matrix [from, to]."""
    return (x.transpose(axis, -1) @ matrix.to(x.dtype)).transpose(axis, -1)


def _kept(source: Sequence[Size], result: Sequence[Size], scales: Sequence[float | None]) -> bool:
    """ATen leaves an image as it is where no size changes, whatever the scale."""
    return any(isinstance(scale, float) for scale in scales) and list(source[2:]) == list(result)


def _resize(matrix: Matrix) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor, size: Sequence[Size], align: bool, *scales: float | None) -> torch.Tensor:
        if _kept(x.shape, size, scales):
            return x.clone()
        for i, result in enumerate(size):
            scale = scales[i] if i < len(scales) else None
            x = _along(x, i + 2, matrix(x.shape[i + 2], result, align, scale, _precise(x.dtype)).t())
        return x.contiguous()

    return forward


def _gradient(matrix: Matrix, aligns: bool, keeps: bool) -> Callable[..., torch.Tensor]:
    def backward(dy: torch.Tensor, size: Sequence[Size], source: Sequence[Size], *rest: Any) -> torch.Tensor:
        align, scales = (rest[0], rest[1:]) if aligns else (False, rest)
        if keeps and _kept(source, size, scales):
            return dy.clone()
        for i, result in enumerate(size):
            scale = scales[i] if i < len(scales) else None
            dy = _along(dy, i + 2, matrix(source[i + 2], result, align, scale, _precise(dy.dtype)))
        return dy.contiguous()

    return backward


def _borrowed(decomposition: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor, size: Sequence[Size], *rest: Any) -> torch.Tensor:
        return x.clone() if _kept(x.shape, size, rest) else decomposition(x, size, *rest)

    return forward


def _repeat(exact: bool) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor, size: Sequence[Size], *scales: float | None) -> torch.Tensor:
        if _kept(x.shape, size, scales):
            return x.clone()
        for i, result in enumerate(size):
            scale = scales[i] if i < len(scales) else None
            x = x.index_select(i + 2, _nearest_index(x.shape[i + 2], result, scale, exact))
        return x

    return forward


FORWARD = {
    aten._upsample_bilinear2d_aa.default: "linear_aa",
    aten._upsample_bicubic2d_aa.default: "cubic_aa",
}
BACKWARD = {
    aten.upsample_nearest1d_backward.default: "nearest",
    aten.upsample_nearest2d_backward.default: "nearest",
    aten.upsample_nearest3d_backward.default: "nearest",
    aten._upsample_nearest_exact1d_backward.default: "_nearest_exact",
    aten._upsample_nearest_exact2d_backward.default: "_nearest_exact",
    aten._upsample_nearest_exact3d_backward.default: "_nearest_exact",
    aten.upsample_linear1d_backward.default: "linear",
    aten.upsample_bilinear2d_backward.default: "linear",
    aten.upsample_trilinear3d_backward.default: "linear",
    aten.upsample_bicubic2d_backward.default: "cubic",
    aten._upsample_bilinear2d_aa_backward.default: "linear_aa",
    aten._upsample_bicubic2d_aa_backward.default: "cubic_aa",
}
BORROWED = (
    aten.upsample_linear1d.default,
    aten.upsample_bilinear2d.default,
    aten.upsample_trilinear3d.default,
)


def table() -> dict[Any, Callable[..., Any]]:
    """Decompositions, by ATen op."""
    bicubic = aten.upsample_bicubic2d.default  # never left as it is
    found: dict[Any, Callable[..., Any]] = {bicubic: decomposition_table[bicubic]}
    found |= {op: _borrowed(decomposition_table[op]) for op in BORROWED}
    for axes in (1, 2, 3):
        found[getattr(aten, f"upsample_nearest{axes}d").default] = _repeat(exact=False)
        found[getattr(aten, f"_upsample_nearest_exact{axes}d").default] = _repeat(exact=True)
    found |= {op: _resize(MATRICES[name]) for op, name in FORWARD.items()}
    return found | {
        op: _gradient(MATRICES[name], aligns="nearest" not in name, keeps="_aa" not in name)
        for op, name in BACKWARD.items()
    }
