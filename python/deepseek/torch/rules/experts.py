"""Products with one matrix for each group of rows: mixtures of experts."""

from __future__ import annotations

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.shapes import Dim, Unsupported

aten = torch.ops.aten


def _group_of(b: Builder, ends: Value, rows: Dim) -> Value:
    """For each row the group that holds it, the groups being consecutive: how many end at it or before."""
    row = b.reshape(b.op("iota", shape=[rows], dtype=ends.dtype, axis=0), [rows, 1])
    before = b.op("less_equal", b.reshape(ends, [1, *ends.shape]), row)
    return b.op("sum", b.cast(before, ends.dtype), axes=[1], keepdims=False)


@rule(aten._grouped_mm.default)
def grouped_mm(
    b: Builder,
    x: Value,
    y: Value,
    ends: Value | None = None,
    bias: Value | None = None,
    out_dtype: torch.dtype | None = None,
) -> Value:
    if bias is not None or b.dtype() != x.dtype:
        raise Unsupported("a grouped product with bias or another dtype")
    if ends is None:
        return b.op("matmul", x, y)
    if len(y.shape) == 3:  # rows of x
        return b.op("expert_matmul", x, y, _group_of(b, ends, x.shape[0]))
    if len(x.shape) == 3:  # columns of y
        index = _group_of(b, ends, y.shape[1])
        return b.swap(b.op("expert_matmul", b.swap(y), b.swap(x), index))
    index = _group_of(b, ends, y.shape[0])
    return b.op("expert_matmul_weights", b.swap(x), y, index, experts=[ends.shape[0]])


# transformers has an operator of its own for where it does not use ATen's.
@rule("transformers::grouped_mm_fallback")
def grouped_rows(b: Builder, x: Value, w: Value, ends: Value) -> Value:
    return b.op("expert_matmul", x, w, _group_of(b, ends, x.shape[0]))


@rule("transformers::grouped_mm_fallback_backward")
def grouped_rows_backward(b: Builder, x: Value, w: Value, ends: Value, dy: Value) -> tuple[Value | None, ...]:
    index = _group_of(b, ends, x.shape[0])
    return tuple(b.gradient("expert_matmul", [x, w, index], {}, [dy], [True, True, False])[:2])
