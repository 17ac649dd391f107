"""From the ops of a TensorFlow function to ops of a graph, in the order in which the function has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph

from deepseek import Error, Value
from deepseek.tensorflow.builder import FOLDS, RULES, Builder, Item
from deepseek.tensorflow.shapes import Known, Undecided, Unsupported, numpy_name

FOLDED = 1024  # elements of the largest array that is computed while translating
ASSIGNMENTS = frozenset({"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"})
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
FUNCTIONS = {  # the attributes that name an op's functions
    **dict.fromkeys(CALLS, ("f",)),
    **dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch")),
    **dict.fromkeys(("While", "StatelessWhile"), ("cond", "body")),
}


def function_graph(op: Any, attr: str) -> Any:
    """The graph of the function that this attribute of a call, branch or loop names."""
    name = op.get_attr(attr).name
    graph, cache = op.graph, _cache_of(op.graph)
    if name not in cache:
        function = graph._get_function(name)
        made = None if function is None else function.graph
        if made is None:
            made = function_def_to_graph.function_def_to_graph(context.context().get_function_def(name))
        cache[name] = made
    return cache[name]


def _cache_of(graph: Any) -> dict[str, Any]:
    if not hasattr(graph, "_deepseek_functions"):
        graph._deepseek_functions = {}
    cache: dict[str, Any] = graph._deepseek_functions
    return cache


def reached(graph: Any, results: Sequence[Any]) -> list[Any]:
    """The ops that the results or a variable's new value need, in order."""
    ops = graph.get_operations()
    needed = {tensor.op.name for tensor in results} | {op.name for op in ops if _changes_state(op)}
    for op in reversed(ops):
        if op.name in needed:
            needed.update(tensor.op.name for tensor in op.inputs)
    return [op for op in ops if op.name in needed]


def _changes_state(op: Any) -> bool:
    if op.type in ASSIGNMENTS:
        return True
    return any(
        _changes_state(inner)
        for attr in FUNCTIONS.get(op.type, ())
        for inner in function_graph(op, attr).get_operations()
    )


def walk(b: Builder, graph: Any, items: Iterable[Item], results: Sequence[Any] | None = None) -> list[Item]:
    """Adds a function to b's graph; gives what stands for `results`, the function's own where not given."""
    wanted = graph.outputs if results is None else results
    env: dict[str, Item] = {tensor.name: item for tensor, item in zip(graph.inputs, items, strict=True)}
    outer = b.node
    for op in reached(graph, wanted):
        if op.type == "Placeholder" and op.outputs[0].name in env:
            continue
        made = _node(b, op, [env[tensor.name] for tensor in op.inputs])
        env.update({tensor.name: item for tensor, item in zip(op.outputs, made, strict=False)})
    b.node = outer
    return [env[tensor.name] for tensor in wanted]


def _node(b: Builder, op: Any, inputs: list[Item]) -> Sequence[Item]:
    """What stands for an op's results: None for each where something that it needs was refused."""
    nothing = [None] * len(op.outputs)
    if any(item is None for item in inputs):
        return nothing
    b.node = op
    b.graph.set_source(op.name)
    try:
        found = _folded(b, op, inputs)
        if found is None:
            if op.type not in RULES:
                raise Unsupported("a translation of this op")
            found = RULES[op.type](b, *inputs)
        results: Sequence[Item] = found if isinstance(found, (tuple, list)) else [found]
        for index, item in enumerate(results):
            _check(op, index, item)
        return results
    except Unsupported as error:
        b.refuse(op, str(error))
    except Undecided:
        b.refuse(op, "sizes that do not depend on a symbol")
    except Error as error:
        b.refuse(op, str(error))
    return nothing


def _folded(b: Builder, op: Any, inputs: Sequence[Item]) -> Any:
    function = FOLDS.get(op.type)
    if function is None or not inputs or not all(isinstance(item, Known) for item in inputs):
        return None
    if any(item.values.size > FOLDED for item in inputs):
        return None
    try:
        found = function(b, *(item.values for item in inputs))
    except Undecided:
        return None
    results = found if isinstance(found, tuple) else (found,)
    known = []
    for index, values in enumerate(results):
        dtype, array = b.result_dtype(index), np.asarray(values)
        if array.dtype != object:
            array = array.astype(numpy_name(dtype))
        known.append(Known(array, dtype))
    return known


def _check(op: Any, index: int, item: Item) -> None:
    """A translation must have the type that TensorFlow says; a difference is a bug of ours, told at once."""
    if not isinstance(item, (Value, Known)):
        return
    tensor = op.outputs[index]
    shape = tensor.shape.as_list() if tensor.shape.rank is not None else list(item.shape)
    fits = item.dtype == tensor.dtype.name and len(shape) == len(item.shape)
    if not fits or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(shape, item.shape, strict=True)
    ):
        got, said = f"{item.dtype}{list(item.shape)}", f"{tensor.dtype.name}{shape}"
        raise Unsupported(f"{said} from its translation, which gives {got}")


def same(a: Item, b: Item) -> bool:
    """Whether two items are one thing."""
    return a is b or (isinstance(a, Value) and isinstance(b, Value) and a == b)


__all__ = ["CALLS", "FUNCTIONS", "function_graph", "reached", "same", "walk"]
