"""`deepseek.compile(module, example_inputs=...)`: a PyTorch module as an Executable, its parameters baked
in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind

import deepseek
from deepseek import Error, Executable, Graph
from deepseek.torch.library import decompositions
from deepseek.torch.nodes import Refused, source_of
from deepseek.torch.partition import Island, clean, float_numbers, is_size, op_of, refusal
from deepseek.torch.translate import translate


def compile_module(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    *,
    dynamic_shapes: dict[str, Any] | tuple[Any, ...] | list[Any] | None = None,
    **options: Any,
) -> Executable:
    """Compiles a module for inference: `graph_of` with `options` as in deepseek.compile."""
    graph = graph_of(module, example_inputs, dynamic_shapes)
    executable: Executable = deepseek.compile(graph, **options)
    return executable


def graph_of(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    dynamic_shapes: dict[str, Any] | tuple[Any, ...] | list[Any] | None = None,
) -> Graph:
    """A module's inference as a graph.

    Inputs carry the names of `forward`'s parameters, outputs are "output" or "output_0", "output_1" and so
    on. Parameters and buffers become constants: a later change of the module does not reach the graph.
    Raises Error(Unsupported) that names the ops which deepseek lacks; `torch.compile(module,
    backend="deepseek")` runs those in PyTorch.
    """
    with torch.no_grad():
        exported = torch.export.export(module, tuple(example_inputs), dynamic_shapes=dynamic_shapes)
        exported = exported.run_decompositions(decompositions())
    graph = exported.graph_module.graph
    clean(graph)
    nodes = [node for node in graph.nodes if node.op == "call_function" and not is_size(node)]
    _check(nodes)
    arguments, constants = _signature(exported)
    results = _results(exported)
    island = Island(nodes, arguments, [node for node, _ in results])
    try:
        translation = translate(
            island, exported.graph_module, constants=constants, output_names=[name for _, name in results]
        )
    except Refused as error:
        raise _unsupported([(error.node, error.reason)]) from error
    return translation.graph


def _signature(exported: torch.export.ExportedProgram) -> tuple[list[fx.Node], dict[fx.Node, torch.Tensor]]:
    """The user's inputs, and the tensors of the module with their values."""
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    arguments, constants = [], {}
    for spec in exported.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(node.meta.get("val"), torch.Tensor):
                arguments.append(node)
        elif spec.target is not None:
            state = exported.state_dict if spec.target in exported.state_dict else exported.constants
            constants[node] = state[spec.target]
    return arguments, constants


def _results(exported: torch.export.ExportedProgram) -> list[tuple[fx.Node, str]]:
    output = next(node for node in exported.graph.nodes if node.op == "output")
    found = []
    for spec, node in zip(exported.graph_signature.output_specs, output.args[0], strict=True):
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise _error(
                "a module whose forward changes no state (call eval())",
                f"a change of {spec.target}",
                source="",
            )
        if isinstance(node, fx.Node):
            found.append(node)
    names = ["output"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))]
    return list(zip(found, names, strict=True))


def _check(nodes: Sequence[fx.Node]) -> None:
    refused = [(node, reason) for node in nodes if (reason := refusal(node)) is not None]
    refused += [(node, "a float that follows from sizes") for node in nodes if float_numbers([node])]
    if refused:
        raise _unsupported(refused)


def _unsupported(refused: Sequence[tuple[fx.Node, str]]) -> Error:
    lacking = sorted({f"{op_of(node)}: {reason}" for node, reason in refused})
    return _error("ops that deepseek has", "; ".join(lacking), source=source_of(refused[0][0]))


def _error(expected: str, got: str, source: str) -> Error:
    place = f"{source}: " if source else ""
    message = f"{place}torch.export: expected {expected}, got {got}"
    return Error(message, "unsupported", "torch.export", source, expected, got)
