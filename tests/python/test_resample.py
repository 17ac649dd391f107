"""Resizing as products with matrices against ATen's own kernels, forward and backward."""

from __future__ import annotations

import pytest
import torch
from deepseek.torch import resample

aten = torch.ops.aten
TABLE = resample.table()
SIZES = [((5, 7), (8, 3)), ((4, 4), (8, 8)), ((16, 16), (5, 4)), ((7, 7), (7, 7)), ((1, 3), (4, 1))]
DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]
ALIGNED = ["upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"]


@pytest.mark.parametrize(("dtype", "limit"), DTYPES)
@pytest.mark.parametrize(("source", "result"), SIZES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", [*ALIGNED, "upsample_nearest2d", "_upsample_nearest_exact2d"])
def test_like_aten(
    name: str, source: list[int], result: list[int], scaled: bool, dtype: torch.dtype, limit: float
) -> None:
    torch.manual_seed(0)
    scales = [m / n * f for n, m, f in zip(source, result, (1.07, 0.93), strict=True)]
    x, dy = torch.randn(2, 3, *source, dtype=dtype), torch.randn(2, 3, *result, dtype=dtype)
    for align in [False, True] if name in ALIGNED else [None]:
        rest = ([] if align is None else [align]) + (scales if scaled else [None, None])
        for op, args in (
            (getattr(aten, name).default, (x, result)),
            (getattr(aten, name + "_backward").default, (dy, result, x.shape)),
        ):
            torch.testing.assert_close(TABLE[op](*args, *rest), op(*args, *rest), rtol=0, atol=limit)


@pytest.mark.parametrize(("dtype", "limit"), DTYPES)
def test_volumes(dtype: torch.dtype, limit: float) -> None:
    torch.manual_seed(0)
    dy = torch.randn(2, 3, 8, 3, 9, dtype=dtype)
    op = aten.upsample_trilinear3d_backward.default
    for align in (False, True):
        args = (dy, [8, 3, 9], [2, 3, 4, 5, 6], align)
        torch.testing.assert_close(TABLE[op](*args), op(*args), rtol=0, atol=limit)
