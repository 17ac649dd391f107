"""Calls, branches and loops.

A branch whose condition is known is taken while translating; a loop whose number of iterations is known comes
one iteration after another, up to the builder's limit. Others become `if` and `while` of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Item, Tensor, Variable, rule
from deepseek.tensorflow.rules.lists import TensorList, stacked
from deepseek.tensorflow.shapes import Known, Unsupported
from deepseek.tensorflow.walk import CALLS, function_graph, same, walk


@rule(*CALLS)
def call(b: Builder, *items: Item) -> list[Item]:
    return walk(b, function_graph(b.node, "f"), items)


def truth(b: Builder, x: Tensor) -> Value:
    """Whether a scalar is not zero."""
    value = b.value(x)
    return value if value.dtype == "bool" else b.op("not_equal", value, b.scalar(0, value.dtype))


def outside(b: Builder, item: Item) -> Item:
    """A list in the form in which a sub-graph can take it: one tensor, unless it is empty."""
    if isinstance(item, TensorList) and item.stacked is None:
        if item.shape is None:
            return replace(item, elements=None)
        return replace(item, elements=None, stacked=stacked(b, item))
    return item


def inside(b: Builder, item: Item) -> Item:
    """An item of the graph around b's, as one of b's."""
    if isinstance(item, Value):
        return b.capture(item)
    if isinstance(item, TensorList) and item.stacked is not None:
        return replace(item, stacked=b.capture(item.stacked))
    if isinstance(item, Variable):
        b.read(item)
    return item


def carry_symbols(b: Builder) -> None:
    """Tells a sub-graph the symbols of the graph around it, by inputs without elements if by no others."""
    assert b.outer is not None
    for value in b.graph.inputs:
        b.symbols |= {size: value for size in value.shape if size in b.outer.symbols}
    for symbol, value in b.outer.symbols.items():
        if symbol not in b.symbols:
            limits = [size if size == symbol else 0 for size in value.shape]
            none = b.outer.op(
                "slice", value, starts=[0] * len(limits), limits=limits, steps=[1] * len(limits)
            )
            b.symbols[symbol] = b.capture(none)


def result_of(b: Builder, item: Item) -> Value:
    """What a sub-graph gives out for an item."""
    if isinstance(item, TensorList):
        return stacked(b, item)
    if item is None or isinstance(item, Variable):
        raise Unsupported("a result that is a tensor")
    return b.value(item)


def received(value: Value, item: Item) -> Item:
    """The item around a sub-graph for the value that it gave out for `item`."""
    if isinstance(item, TensorList):
        return TensorList(item.dtype, item.length, item.shape, stacked=value)
    return value


@rule("If", "StatelessIf")
def branch(b: Builder, condition: Tensor, *items: Item) -> list[Item]:
    node = b.node
    then, otherwise = function_graph(node, "then_branch"), function_graph(node, "else_branch")
    if isinstance(condition, Known) and not condition.symbolic:
        return walk(b, then if condition.values.any() else otherwise, items)
    given = [outside(b, item) for item in items]
    holds = truth(b, condition)
    parts, results = [], []
    for graph in (then, otherwise):
        part = Builder(b)
        inner = [inside(part, item) for item in given]
        carry_symbols(part)
        results.append(walk(part, graph, inner))
        parts.append(part)
    if any(item is None for found in results for item in found):
        return [None] * len(node.outputs)
    b.node = node
    if not node.outputs:
        return []
    for part, found in zip(parts, results, strict=True):
        _give_out(part, [result_of(part, item) for item in found])
    made = b.ops(
        "if",
        holds,
        *(value for value, _ in parts[0].captured),
        then=parts[0].graph,
        otherwise=parts[1].graph,
    )
    return [received(value, item) for value, item in zip(made, results[0], strict=True)]


def _give_out(part: Builder, values: Sequence[Value]) -> None:
    for i, value in enumerate(values):
        part.graph.output(f"result_{i}", value)


@rule("While", "StatelessWhile")
def loop(b: Builder, *items: Item) -> list[Item]:
    node = b.node
    condition, body = function_graph(node, "cond"), function_graph(node, "body")
    state = list(items)
    for trip in range(b.unrolled + 1):
        b.node = node
        (go,) = walk(b, condition, state)
        if go is None:
            return [None] * len(items)
        if not isinstance(go, Known) or go.symbolic:
            break
        if not go.values.any():
            return state
        if trip == b.unrolled:
            state = list(items)
            break
        state = walk(b, body, state)
    b.node = node
    return _Loop(b, condition, body, state).build()


class _Loop:
    """A `while` of the graph. Trials of the body show which items stay as they are and what lists hold."""

    def __init__(self, b: Builder, condition: Any, body: Any, items: Sequence[Item]) -> None:
        self.b, self.condition, self.body, self.node = b, condition, body, b.node
        self.items = [outside(b, item) for item in items]
        self.fixed = {i for i, item in enumerate(items) if isinstance(item, Variable)}

    def build(self) -> list[Item]:
        for _ in range(len(self.items) + 1):
            part, inner, results = self._part(self.body, trial=True)
            if not self._learn(inner, results):
                break
        part, inner, results = self._part(self.body)
        test, _, (go,) = self._part(self.condition)
        carried = self.carried
        if go is None or any(results[i] is None for i in carried):
            return [None] * len(self.items)
        _give_out(part, [result_of(part, results[i]) for i in carried])
        _give_out(test, [truth(test, go)])
        self.b.node = self.node
        captured = [value for value, _ in part.captured]
        made = self.b.ops(
            "while",
            *(self._initial(i) for i in carried),
            *captured,
            condition=test.graph,
            body=part.graph,
            carried=len(carried),
        )
        final = list(self.items)
        for value, i in zip(made, carried, strict=True):
            final[i] = received(value, results[i])
        return final

    @property
    def carried(self) -> list[int]:
        return [i for i in range(len(self.items)) if i not in self.fixed]

    def _initial(self, i: int) -> Value:
        item = self.items[i]
        if isinstance(item, TensorList):
            if item.stacked is None:
                raise Unsupported("a loop that tells the shape of its lists' elements")
            return item.stacked
        return self.b.value(item)

    def _part(self, graph: Any, trial: bool = False) -> tuple[Builder, list[Item], list[Item]]:
        part = Builder(self.b, refused=[] if trial else None)
        inner: list[Item] = list(self.items)
        for i in self.carried:
            item = self.items[i]
            if isinstance(item, TensorList) and item.stacked is None:
                continue
            value = self._initial(i)
            place = part.graph.placeholder(f"state_{i}", shape=list(value.shape), dtype=value.dtype)
            inner[i] = replace(item, stacked=place) if isinstance(item, TensorList) else place
        for i in sorted(self.fixed):
            inner[i] = inside(part, self.items[i])
        carry_symbols(part)
        return part, inner, walk(part, graph, inner)

    def _learn(self, inner: Sequence[Item], results: Sequence[Item]) -> bool:
        """Takes note of what stays and of the shapes in lists; whether there was something new."""
        found = False
        for i in self.carried:
            if same(inner[i], results[i]):
                self.fixed.add(i)
                found = True
            item, result = self.items[i], results[i]
            if not isinstance(item, TensorList) or item.stacked is not None:
                continue
            if isinstance(result, TensorList) and result.shape is not None:
                self.items[i] = outside(self.b, replace(item, shape=result.shape))
                found = True
        return found
