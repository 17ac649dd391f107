"""PyTorch's control flow (torch.cond, while_loop, scan, map), with graphs within the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from deepseek import Value
from deepseek.torch.builder import Builder, Result, loop, rule
from deepseek.torch.nodes import Refused, inlined
from deepseek.torch.shapes import Unsupported, dims, dtype_name

higher_order = torch.ops.higher_order


def _placeholders(module: fx.GraphModule) -> list[fx.Node]:
    return list(module.graph.find_nodes(op="placeholder"))


def _tensors(operands: Sequence[Any]) -> list[Value]:
    """Operands without the sizes among them, which inner graphs take from tensors' shapes."""
    return [operand for operand in operands if isinstance(operand, Value)]


def _results(inner: Builder, module: fx.GraphModule, values: Sequence[Any]) -> list[Value | None]:
    try:
        return inlined(inner, module, values)
    except Refused as error:
        raise Unsupported(f"within, {error.node.target}: {error}") from error


def _graph(module: fx.GraphModule, operands: Sequence[Any]) -> tuple[Any, list[bool]]:
    """A graph of the module's that takes the tensors among the operands; which of its results are tensors."""
    inner = Builder()
    values = []
    for node, operand in zip(_placeholders(module), operands, strict=True):
        if isinstance(operand, Value):
            fake = node.meta["val"]
            shape, dtype = dims(fake.shape), dtype_name(fake.dtype)
            operand = inner.graph.placeholder(node.name, shape=shape, dtype=dtype)
        values.append(operand)
    results = _results(inner, module, values)
    for position, result in enumerate(results):
        if result is not None:
            inner.graph.output(f"result_{position}", result)
    return inner.graph, [result is not None for result in results]


@rule(higher_order.cond)
def cond(
    b: Builder,
    condition: Value,
    then: fx.GraphModule,
    otherwise: fx.GraphModule,
    operands: Sequence[Any] = (),
) -> Result:
    graphs = [_graph(module, operands) for module in (then, otherwise)]
    if graphs[0][1] != graphs[1][1]:
        raise Unsupported("branches of which one gives a tensor where the other gives none")
    given = iter(b.ops("if", condition, *_tensors(operands), then=graphs[0][0], otherwise=graphs[1][0]))
    return tuple(next(given) if there else None for there in graphs[0][1])


@rule(higher_order.while_loop)
def while_loop(
    b: Builder,
    condition: fx.GraphModule,
    body: fx.GraphModule,
    carried: Sequence[Any],
    further: Sequence[Any] = (),
) -> Result:
    if len(_tensors(carried)) < len(carried):
        raise Unsupported("a loop that carries numbers")
    operands = [*carried, *further]
    test, step = (_graph(module, operands)[0] for module in (condition, body))
    return b.ops("while", *_tensors(operands), condition=test, body=step, carried=len(carried))


@rule(higher_order.scan)
def scan(
    b: Builder, step: fx.GraphModule, first: Sequence[Value], rows: Sequence[Value], further: Sequence[Any]
) -> Result:
    """A loop over the rows, one of each result stored in every round."""
    if len(_tensors([*first, *rows])) < len(first) + len(rows):
        raise Unsupported("a scan over numbers")
    count = rows[0].shape[0]
    carried = len(first)
    state = {f"carried_{i}": value for i, value in enumerate(first)}
    results = step.graph.output_node().args[0]
    assert isinstance(results, (list, tuple))
    stacked = {
        f"stacked_{i}": b.op("full", shape=list(b.shape(i)), value=0.0, dtype=b.dtype(i))
        for i in range(carried, len(results))
    }
    fixed = {f"rows_{i}": value for i, value in enumerate(rows)}
    fixed |= {f"further_{i}": value for i, value in enumerate(further) if isinstance(value, Value)}

    def goes_on(inner: Builder, values: dict[str, Value]) -> Value:
        return inner.op("less", values["round"], inner.tensor(count, "int64"))

    def body(inner: Builder, values: dict[str, Value]) -> dict[str, Value]:
        now = values["round"]

        def starts(rank: int) -> Value:
            zeros = [inner.reshape(inner.constant(0, "int64"), [1])] * (rank - 1)
            return inner.op("concat", inner.reshape(now, [1]), *zeros, axis=0)

        def row(x: Value) -> Value:
            shape = list(x.shape)
            found = inner.op("dynamic_slice", x, starts(len(shape)), sizes=[1, *shape[1:]])
            return inner.reshape(found, shape[1:])

        operands = [values[name] for name in state]
        operands += [row(values[f"rows_{i}"]) for i in range(len(rows))]
        operands += [values.get(f"further_{i}", value) for i, value in enumerate(further)]
        results = _results(inner, step, operands)
        if any(result is None for result in results):
            raise Unsupported("a scan with results that are no tensors")
        following = {"round": inner.op("add", now, inner.constant(1, "int64"))}
        for name, result in zip([*state, *stacked], results, strict=True):
            assert result is not None
            if name in stacked:
                whole = values[name]
                result = inner.reshape(result, [1, *result.shape])
                result = inner.op("dynamic_update_slice", whole, result, starts(len(whole.shape)))
            following[name] = result
        return following

    start = {"round": b.constant(0, "int64")}
    last = loop(b, start | state | stacked, fixed, goes_on, body)
    return tuple(last[name] for name in [*state, *stacked])


@rule(higher_order.map_impl)
def map_rows(b: Builder, function: fx.GraphModule, rows: Sequence[Value], further: Sequence[Any]) -> Result:
    """A scan that carries nothing."""
    return scan(b, function, [], rows, further)
