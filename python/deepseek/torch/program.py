"""A compiled FX graph as a list of steps over slots: pieces of ours, ATen calls in between, views at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from deepseek.torch.partition import DRAWS_LIKE, Island, Step, is_size
from deepseek.torch.piece import Piece
from deepseek.torch.shapes import evaluator, expression, symbols_of
from deepseek.torch.translate import attribute, lone_symbols

aten = torch.ops.aten

# Between pieces tensors may be dense where the trace had a permuted layout: these must not insist on strides.
TOLERANT: dict[Any, Callable[..., Any]] = {aten.view.default: torch.Tensor.reshape}


@dataclass
class Slots:
    """Where each node's value lies while a program runs."""

    index: dict[object, int] = field(default_factory=dict)

    def of(self, node: object) -> int:
        return self.index.setdefault(node, len(self.index))


class Program:
    """Runs the steps. The call takes a list of inputs, which it empties so that they can die early."""

    def __init__(
        self, module: fx.GraphModule, steps: Sequence[Step], pieces: dict[int, Piece], fix_strides: int
    ) -> None:
        """`pieces`: by the island's id(). The first `fix_strides` outputs get the traced strides."""
        slots = Slots()
        graph = module.graph
        self.placeholders = [slots.of(node) for node in graph.nodes if node.op == "placeholder"]
        self._bind_symbols(graph, slots)
        self.steps: list[Callable[[list[Any]], None]] = []
        freed = _last_uses(graph, steps)
        for position, step in enumerate(steps):
            if isinstance(step, Island):
                self.steps.append(self._piece_step(step, pieces[id(step)], slots))
            else:
                self.steps.append(self._eager_step(step, slots))
            dead = [slots.of(node) for node in freed[position]]
            if dead:
                self.steps.append(_free_step(dead))
        output = next(node for node in graph.nodes if node.op == "output")
        self.results = [slots.of(arg) if isinstance(arg, fx.Node) else None for arg in output.args[0]]
        self.strides = self._stride_fixes(output.args[0][:fix_strides])
        attributes = [node for node in graph.nodes if node.op == "get_attr" and node in slots.index]
        self.constants = [(slots.of(node), attribute(module, str(node.target))) for node in attributes]
        self.size = len(slots.index)

    def __call__(self, inputs: list[Any]) -> list[Any]:
        values: list[Any] = [None] * self.size
        values[: len(inputs)] = inputs
        inputs.clear()
        for slot, constant in self.constants:
            values[slot] = constant
        values[self.symbol_slot] = ()
        if self.symbol_sources:
            symbols = [
                values[slot] if axis is None else values[slot].shape[axis]
                for slot, axis in self.symbol_sources
            ]
            values[self.symbol_slot] = symbols
            for slot, size in zip(self.size_slots, self.sizes(*symbols), strict=True):
                values[slot] = size[0]
        for step in self.steps:
            step(values)
        results: list[Any] = [None if slot is None else values[slot] for slot in self.results]
        for position, strides in self.strides:
            results[position] = _with_strides(results[position], strides(*values[self.symbol_slot])[0])
        return results

    def _bind_symbols(self, graph: fx.Graph, slots: Slots) -> None:
        """Where the value of each symbol comes from, and the numbers among the nodes' values."""
        found: dict[str, tuple[int, int | None]] = {}
        for node in graph.nodes:
            if node.op != "placeholder":
                continue
            value = node.meta["val"]
            sizes = enumerate(value.shape) if isinstance(value, torch.Tensor) else [(None, value)]
            for axis, size in sizes:
                if isinstance(size, torch.SymInt) and expression(size).is_Symbol:
                    found.setdefault(str(expression(size)), (slots.of(node), axis))
        self.symbols = list(found)
        self.symbol_sources = list(found.values())
        numbers = [
            n
            for n in graph.nodes
            if n.op == "call_function" and isinstance(n.meta.get("val"), (int, torch.SymInt))
        ]
        numbers = [n for n in numbers if symbols_of(n.meta["val"]) <= set(found)]
        self.size_slots = [slots.of(node) for node in numbers]
        self.sizes = evaluator(self.symbols, [(node.meta["val"],) for node in numbers])
        self.symbol_slot = slots.of("symbols")

    def _piece_step(self, island: Island, piece: Piece, slots: Slots) -> Callable[[list[Any]], None]:
        inputs, lone = [slots.of(node) for node in island.inputs], lone_symbols(island)
        outputs = [slots.of(node) for node in island.outputs]
        fakes = [node.meta["val"] for node in island.outputs]
        if not lone and not any(symbols_of(size) for fake in fakes for size in fake.shape):
            known = [tuple(int(size) for size in fake.shape) for fake in fakes]

            def run_static(values: list[Any]) -> None:
                for slot, result in zip(outputs, piece([values[i] for i in inputs], known), strict=True):
                    values[slot] = result

            return run_static
        shapes, symbol_slot = evaluator(self.symbols, [fake.shape for fake in fakes]), self.symbol_slot
        places = [self.symbols.index(symbol) for symbol in lone]

        def run(values: list[Any]) -> None:
            symbols = values[symbol_slot]
            rows = [torch.empty((symbols[at], 0), dtype=torch.uint8) for at in places]
            results = piece([*(values[i] for i in inputs), *rows], shapes(*symbols))
            for slot, result in zip(outputs, results, strict=True):
                values[slot] = result

        return run

    def _eager_step(self, node: fx.Node, slots: Slots) -> Callable[[list[Any]], None]:
        target: Any = TOLERANT.get(node.target, node.target)
        result, symbol_slot = slots.of(node), self.symbol_slot
        sources = {source: slots.of(source) for source in node.all_input_nodes}

        def given(argument: Any, values: list[Any]) -> Any:
            return fx.map_arg(argument, lambda source: values[sources[source]])

        def run(values: list[Any]) -> None:
            values[result] = target(*given(node.args, values), **given(node.kwargs, values))

        if node.target not in DRAWS_LIKE:
            return run
        fake = node.meta["val"]
        layout = evaluator(self.symbols, [fake.shape, fake.stride()])

        def draw(values: list[Any]) -> None:
            like = torch.empty_strided(*layout(*values[symbol_slot]), dtype=fake.dtype)
            values[result] = target(like, *given(node.args[1:], values), **given(node.kwargs, values))

        return draw

    def _stride_fixes(self, outputs: Sequence[Any]) -> list[tuple[int, Callable[..., Any]]]:
        """Outputs whose layout is not row-major in PyTorch; views of them rely on it."""
        fixes = []
        for position, node in enumerate(outputs):
            fake = node.meta.get("val") if isinstance(node, fx.Node) else None
            if not isinstance(fake, torch.Tensor) or fake.layout is not torch.strided:
                continue
            if any(free_unbacked_symbols(size) for size in (*fake.shape, *fake.stride())):
                continue  # PyTorch made it, with its own layout
            if not fake.is_contiguous():
                fixes.append((position, evaluator(self.symbols, [fake.stride()])))
        return fixes


def _free_step(dead: Sequence[int]) -> Callable[[list[Any]], None]:
    def run(values: list[Any]) -> None:
        for slot in dead:
            values[slot] = None

    return run


def _last_uses(graph: fx.Graph, steps: Sequence[Step]) -> list[list[fx.Node]]:
    """For each step, the values that nothing needs after it."""
    output = next(node for node in graph.nodes if node.op == "output")
    kept = set(output.all_input_nodes)
    freed: list[list[fx.Node]] = []
    for step in reversed(steps):
        sources = step.inputs if isinstance(step, Island) else step.all_input_nodes
        dead = [node for node in sources if node not in kept and not is_size(node) and node.op != "get_attr"]
        kept.update(dead)
        freed.append(dead)
    return freed[::-1]


def _with_strides(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
