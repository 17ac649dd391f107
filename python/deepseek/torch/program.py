"""A compiled FX graph as a Python function: calls of our pieces, ATen calls in between, views at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from deepseek.torch.nodes import attribute, lone_symbols
from deepseek.torch.partition import (
    DRAWS_LIKE,
    WRAPPERS,
    Island,
    Step,
    float_numbers,
    is_size,
    op_of,
    tensors_of,
)
from deepseek.torch.piece import Piece
from deepseek.torch.shapes import expression, meaning, python_source, pytorch_symbols_of
from deepseek.torch.writes import write

aten = torch.ops.aten

# Draws other numbers into memory with gaps, which its functional form does not have.
NORMAL = aten.normal_functional.default

# Between pieces tensors may be dense where the trace had a permuted layout: these must not insist on strides.
TOLERANT: dict[Any, Callable[..., Any]] = {
    aten.view.default: torch.Tensor.reshape,
    NORMAL: torch.Tensor.normal_,
    aten.view_as_real.default: lambda x: torch.view_as_real(x.resolve_conj().resolve_neg()),
}

Function = Callable[[list[Any]], list[Any]]


class Program:
    """Writes the function. Its call takes a list of inputs, which it empties so that they can die early."""

    def __init__(
        self,
        module: fx.GraphModule,
        steps: Sequence[Step],
        pieces: dict[int, Piece],
        fix_strides: int,
        written: Sequence[fx.Node] = (),
    ) -> None:
        """`pieces`: by the island's id(). The first `fix_strides` outputs get the traced strides. The last
        ones are new values of the inputs `written`.
        """
        self.module, self.pieces = module, pieces
        self.constants: dict[str, Any] = {}
        self.names: dict[fx.Node, str] = {}
        self.used: set[str] = set()  # symbols
        self.body: list[str] = []
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        inputs = [self._name(node) for node in placeholders]
        symbols = self._symbols(placeholders)
        freed = _last_uses(module.graph, steps, written)
        for step, dead in zip(steps, freed, strict=True):
            dropped = [" = ".join([*map(self._name, dead), "None"])] if dead else []
            if isinstance(step, Island):
                self.body += self._piece(step, dropped)
            else:
                self.body += [self._eager(step), *(dropped if step is not steps[-1] else [])]
        nodes: Any = module.graph.output_node().args[0]
        returned = nodes[: len(nodes) - len(written)]
        self.body += self._writes(written, nodes[len(returned) :], steps)
        results = self._results(returned, fix_strides)
        if (whole := self._one_piece(steps, inputs, results)) is not None:
            self.body = [f"return {self._run(whole, 'inputs')}"]
        else:
            taken = [f"{''.join(f'{name}, ' for name in inputs)}= inputs"] if inputs else []
            self.body = [*taken, "inputs.clear()", *self.body, f"return [{', '.join(results)}]"]
        found = [f"{symbol} = {symbols[symbol]}" for symbol in symbols if symbol in self.used]
        self.source = "\n    ".join(["def run(inputs):", *found, *self.body])

    def _name(self, node: fx.Node) -> str:
        return self.names.setdefault(node, f"v{len(self.names)}")

    def _constant(self, value: Any) -> str:
        for name, known in self.constants.items():
            if known is value:
                return name
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def _symbols(self, placeholders: Sequence[fx.Node]) -> dict[str, str]:
        """Where the value of each symbol comes from."""
        found: dict[str, str] = {}
        for position, node in enumerate(placeholders):
            value, name = node.meta["val"], f"inputs[{position}]"
            sizes = (
                [(f"{name}.shape[{axis}]", size) for axis, size in enumerate(value.shape)]
                if isinstance(value, torch.Tensor)
                else [(name, value)]
            )
            for source, size in sizes:
                if isinstance(size, torch.SymInt) and expression(size).is_Symbol:
                    found.setdefault(str(expression(size)), source)
        return found

    def _size(self, size: int | torch.SymInt | sympy.Expr) -> str:
        self.used |= pytorch_symbols_of(size)
        return python_source(size)

    def _sizes(self, sizes: Sequence[int | torch.SymInt]) -> str:
        return f"({''.join(f'{self._size(size)}, ' for size in sizes)})"

    def _outputs(self, island: Island) -> list[fx.Node]:
        """What the piece returns: it has stored the others in its inputs."""
        stored = {output for output, _ in self.pieces[id(island)].updates}
        return [node for position, node in enumerate(island.outputs) if position not in stored]

    def _writes(
        self, written: Sequence[fx.Node], values: Sequence[fx.Node], steps: Sequence[Step]
    ) -> list[str]:
        """Copies into inputs that no piece writes."""
        made = [node for step in steps if isinstance(step, Island) for node in self._outputs(step)]
        stored = {
            node for step in steps if isinstance(step, Island) for node in step.outputs if node not in made
        }
        pairs = [
            (source, value) for source, value in zip(written, values, strict=True) if value not in stored
        ]
        clone, copy = self._constant(torch.clone), self._constant(write)
        # What may be a view of an input is read before any is written.
        kept = [
            f"w{k} = {clone}({self._value(value)})" for k, (_, value) in enumerate(pairs) if value not in made
        ]
        copies = [
            f"{copy}({self._name(source)}, {self._value(value) if value in made else f'w{k}'})"
            for k, (source, value) in enumerate(pairs)
        ]
        return kept + copies

    def _piece(self, island: Island, dropped: list[str]) -> list[str]:
        """The piece alone holds what dies in it."""
        results = "".join(f"{self._name(node)}, " for node in self._outputs(island))
        given = ", ".join(self._given(island))
        return [f"given = [{given}]", *dropped, f"{results and f'{results}= '}{self._run(island, 'given')}"]

    def _run(self, island: Island, inputs: str) -> str:
        shapes = "".join(f"{self._sizes(node.meta['val'].shape)}, " for node in self._outputs(island))
        return f"{self._constant(self.pieces[id(island)])}.run({inputs}, ({shapes}))"

    def _given(self, island: Island) -> list[str]:
        given = [self._value(node) for node in island.inputs]
        for symbol in lone_symbols(island):
            empty, uint8 = self._constant(torch.empty), self._constant(torch.uint8)
            given.append(f"{empty}(({self._size(meaning(symbol))}, 0), dtype={uint8})")
        for node in float_numbers(island.nodes):
            tensor, float64 = self._constant(torch.tensor), self._constant(torch.float64)
            given.append(f"{tensor}({self._node(node)}, dtype={float64})")
        return given

    def _one_piece(self, steps: Sequence[Step], inputs: list[str], results: list[str]) -> Island | None:
        """The piece to which all inputs go in order and whose results are the function's."""
        if len(steps) != 1 or not isinstance(steps[0], Island) or self._given(steps[0]) != inputs:
            return None
        return steps[0] if [self._name(node) for node in self._outputs(steps[0])] == results else None

    def _eager(self, node: fx.Node) -> str:
        given = [self._value(argument) for argument in node.args]
        if op_of(node) in DRAWS_LIKE:
            fake = tensors_of(node.meta["val"])[-1]  # a generator's state may come first
            strides = node.meta["drawn into"] if op_of(node) is NORMAL else fake.stride()
            empty, dtype = self._constant(torch.empty_strided), self._constant(fake.dtype)
            sizes = f"{self._sizes(fake.shape)}, {self._sizes(strides)}"
            given[WRAPPERS.get(node.target, -1) + 1] = f"{empty}({sizes}, dtype={dtype})"
        given += [f"{key}={self._value(argument)}" for key, argument in node.kwargs.items()]
        target: Any = TOLERANT.get(node.target, node.target)
        return f"{self._name(node)} = {self._constant(target)}({', '.join(given)})"

    def _value(self, value: Any) -> str:
        """A Python expression of an argument."""
        if isinstance(value, fx.Node):
            return self._node(value)
        if isinstance(value, torch.SymInt):
            return f"({self._size(value)})"
        if isinstance(value, list):
            return f"[{', '.join(map(self._value, value))}]"
        if isinstance(value, tuple):
            return f"({''.join(f'{self._value(item)}, ' for item in value)})"
        if value is None or isinstance(value, (bool, int, str)):
            return repr(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        return self._constant(value)

    def _node(self, node: fx.Node) -> str:
        if node.op == "get_attr":
            return self._constant(attribute(self.module, str(node.target)))
        if node.op != "call_function" or not is_size(node):
            return self._name(node)
        value = node.meta["val"]
        if isinstance(value, (int, torch.SymInt)):
            return f"({self._size(value)})"
        return f"{self._constant(node.target)}({', '.join(map(self._value, node.args))})"

    def _results(self, results: Sequence[Any], fix_strides: int) -> list[str]:
        """Outputs whose layout is not row-major in PyTorch get it: views of them rely on it."""
        expressions = [self._value(node) for node in results]
        for position, node in enumerate(results[:fix_strides]):
            fake = node.meta.get("val") if isinstance(node, fx.Node) else None
            if not isinstance(fake, torch.Tensor) or fake.layout is not torch.strided:
                continue
            if any(free_unbacked_symbols(size) for size in (*fake.shape, *fake.stride())):
                continue  # PyTorch made it, with its own layout
            if not fake.is_contiguous():
                fixed = f"({expressions[position]}, {self._sizes(fake.stride())})"
                expressions[position] = self._constant(with_strides) + fixed
        return expressions


def function_of(source: str, constants: dict[str, Any]) -> Function:
    """The function that a Program wrote."""
    names = {"math": math, "torch": torch} | constants
    exec(compile(source, "<deepseek>", "exec"), names)
    function: Function = names["run"]
    function._boxed_call = True  # type: ignore[attr-defined]  # AOT Autograd's word for taking one list
    return function


def _last_uses(graph: fx.Graph, steps: Sequence[Step], written: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """For each step, the values that nothing needs after it."""
    kept = {*graph.output_node().all_input_nodes, *written}
    freed: list[list[fx.Node]] = []
    for step in reversed(steps):
        sources = step.inputs if isinstance(step, Island) else step.all_input_nodes
        dead = [node for node in sources if node not in kept and not is_size(node) and node.op != "get_attr"]
        kept.update(dead)
        freed.append(dead)
    return freed[::-1]


def with_strides(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    pairs = zip(tensor.shape, tensor.stride(), strides, strict=True)
    if all(own == stride for size, own, stride in pairs if size > 1):
        return tensor
    first = tensor
    for axis, stride in enumerate(strides):
        if stride == 0:  # its elements are one
            first = first.narrow(axis, 0, min(1, tensor.shape[axis]))
    result = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype)
    result.as_strided(first.shape, strides).copy_(first)
    return result
