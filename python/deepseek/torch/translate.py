"""From an island of FX nodes to a deepseek graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from deepseek import Graph, Value
from deepseek.torch import rules as _rules  # noqa: F401  (registers them)
from deepseek.torch.builder import Builder
from deepseek.torch.nodes import lone_symbols, tensor_constant, translate_node
from deepseek.torch.partition import Island, float_numbers
from deepseek.torch.shapes import dims, dtype_name


@dataclass
class Translation:
    graph: Graph
    inputs: list[str]  # placeholder names, in the island's order
    outputs: list[str]


def translate(
    island: Island,
    module: fx.GraphModule,
    parameters: AbstractSet[fx.Node] = frozenset(),
    constants: Mapping[fx.Node, torch.Tensor] | None = None,
    output_names: Sequence[str] | None = None,
) -> Translation:
    """The island as a graph. Raises Refused for what we lack.

    After the island's inputs come its lone symbols and then its float numbers, as scalars. Inputs in
    `parameters` get that role; nodes in `constants` become constants.
    """
    builder = Builder()
    graph = builder.graph
    env: dict[fx.Node, Any] = {}
    for node in island.inputs:
        fake = node.meta["val"]
        role = "parameter" if node in parameters else "argument"
        shape, dtype = dims(fake.shape), dtype_name(fake.dtype)
        env[node] = graph.placeholder(node.name, shape=shape, dtype=dtype, role=role)
    lone = lone_symbols(island)
    for symbol in lone:
        graph.placeholder(f"rows_{symbol}", shape=[symbol, 0], dtype="uint8")
    for node in float_numbers(island.nodes):
        env[node] = graph.placeholder(node.name, shape=[], dtype="float64")
    for node, tensor in (constants or {}).items():
        if node.users:
            env[node] = tensor_constant(graph, tensor)
    for node in island.nodes:
        env[node] = translate_node(builder, node, module, env)
    outputs = list(output_names or [node.name for node in island.outputs])
    for node, name in zip(island.outputs, outputs, strict=True):
        value = env[node]
        assert isinstance(value, Value)
        graph.output(name, value)
    return Translation(graph, [node.name for node in island.inputs], outputs)
