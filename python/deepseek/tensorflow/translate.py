"""From a concrete function to a deepseek graph."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from deepseek import Error, Graph, Value
from deepseek.tensorflow import rules as _rules  # noqa: F401  (registers them)
from deepseek.tensorflow.builder import Builder, Variable
from deepseek.tensorflow.functions import Function
from deepseek.tensorflow.shapes import Dim, Known, Unsupported, dtype_name
from deepseek.tensorflow.walk import walk

UNROLLED = 16  # iterations of a loop that are compiled apart where a `while` would do


@dataclass
class Translation:
    """A graph with the function's inputs as arguments and its variables as parameters."""

    graph: Graph
    arguments: list[Value]
    parameters: dict[Variable, Value]
    results: list[Value]
    updates: dict[Variable, Value]  # what variables hold afterwards


def translate(
    function: Function, *, unrolled: int = UNROLLED, baked: bool = False, differentiable: bool = False
) -> Translation:
    """Raises one Error that names everything which deepseek lacks, by op and node.

    `baked`: variables become constants of what they hold now. `differentiable`: gradients are wanted.
    """
    b = Builder()
    b.unrolled, b.differentiable = unrolled, differentiable
    arguments: list[Value] = []
    for name, tensor in function.inputs.items():
        arguments.append(_argument(b, function, name, tensor))
    names: dict[str, int] = defaultdict(int, dict.fromkeys(function.inputs, 1))
    parameters: dict[Variable, Value] = {}
    for item in function.captures.values():
        if isinstance(item, Variable) and baked:
            b.state[item] = Known(item.source.numpy(), item.dtype)
        elif isinstance(item, Variable) and item not in parameters:
            count = names[item.name]
            names[item.name] += 1
            name = f"{item.name}_{count}" if count else item.name
            value = b.graph.placeholder(name, list(item.shape), item.dtype, role="parameter")
            parameters[item] = b.state[item] = value
    given = iter(arguments)
    items = [
        function.captures[tensor.name] if tensor.name in function.captures else next(given)
        for tensor in function.concrete.inputs
    ]
    results = walk(b, function.concrete.graph, items, function.results)
    if b.refused:
        raise _lacking(b.refused)
    return Translation(
        b.graph,
        arguments,
        parameters,
        [b.value(item) for item in results],
        {variable: b.value(b.state[variable]) for variable in b.assigned},
    )


def _argument(b: Builder, function: Function, name: str, tensor: Any) -> Value:
    if tensor.shape.rank is None:
        raise _error(f"input {name} of known rank", "unknown", name)
    shape: list[Dim] = []
    for along, size in enumerate(tensor.shape.as_list()):
        if size is None:
            size = "batch" if along == 0 and function.one_batch else f"{_word(name)}_{along}"
        shape.append(size)
    try:
        dtype = dtype_name(tensor.dtype)
    except Unsupported as error:
        raise _error("inputs of a dtype that deepseek has", str(error), name) from error
    value = b.graph.placeholder(name, shape, dtype)
    b.symbols |= {size: value for size in shape if isinstance(size, str) and size not in b.symbols}
    return value


def _word(name: str) -> str:
    """The name as a symbol may be written."""
    text = "".join(c if c.isalnum() else "_" for c in name)
    return text if text[:1].isalpha() else f"_{text}"


def _lacking(refused: list[tuple[Any, str]]) -> Error:
    where: dict[str, list[str]] = defaultdict(list)
    for op, reason in refused:
        where[f"{op.type}: {reason}"].append(op.name)
    told = []
    for what, nodes in sorted(where.items()):
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        told.append(f"{what} (at {', '.join(nodes[:3])}{more})")
    return _error("ops that deepseek has; it lacks for", "; ".join(told), refused[0][0].name)


def _error(expected: str, got: str, source: str) -> Error:
    message = f"{source}: tensorflow: expected {expected}, got {got}"
    return Error(message, "unsupported", "tensorflow", source, expected, got)
