"""Translates FX nodes, in order, into a deepseek graph: those of an island, and those of graphs within it."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from deepseek import Error, Graph, Value
from deepseek.torch.builder import Builder, Result, map_argument, rule_of
from deepseek.torch.partition import Island, float_numbers, is_size, mark_refused, tensors_of
from deepseek.torch.shapes import Unsupported, dims, dtype_name, is_symbol, may_be_negative, symbols_of

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_ROOT = re.compile(r"^L\['\w+'\]\.?")  # how Dynamo writes the compiled function's own argument
_LIBRARY = os.path.dirname(torch.__file__) + os.sep


class Refused(Exception):
    """A node that deepseek cannot take after all."""

    def __init__(self, node: fx.Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


def source_of(node: fx.Node) -> str:
    """The user's line that made this node ("model.py:12"), or else the module in the model, or the op."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for path, line in reversed(frames):
        if not path.startswith(_LIBRARY):
            return f"{path}:{line}"
    for key, what in (("nn_module_stack", ""), ("fwd_nn_module_stack", "gradient of ")):
        for path, kind in reversed(list((node.meta.get(key) or {}).values())):
            name = _ROOT.sub("", str(path)) or "the model"
            return f"{what}{name} ({kind if isinstance(kind, str) else kind.__name__})"
    return str(node.target)


def tensor_constant(graph: Graph, tensor: torch.Tensor) -> Value:
    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        value = graph.op("cast", [graph.constant(tensor.float().numpy())], {"dtype": "bfloat16"})
        assert isinstance(value, Value)
        return value
    return graph.constant(tensor.numpy())


def lone_symbols(island: Island) -> list[str]:
    """Symbols that the island computes with and that are no dim of an input: numbers that the user gives.

    Each becomes an input of that many rows and no columns. Raises Refused for one that may be negative.
    """
    given: set[str] = set()
    for source in island.inputs:
        given.update(*(symbols_of(size) for size in source.meta["val"].shape if is_symbol(size)))
    lone: dict[str, None] = {}
    for node in island.nodes:
        numbers = [source.meta["val"] for source in node.all_input_nodes if is_size(source)]
        tensors = tensors_of([n.meta.get("val") for n in (node, *node.all_input_nodes)])
        sizes = [size for tensor in tensors for size in tensor.shape]
        for size in [*sizes, *numbers]:
            if not isinstance(size, torch.SymInt):
                continue
            for symbol in sorted(symbols_of(size) - given):
                if may_be_negative(size, symbol):
                    raise Refused(node, f"a number that may be negative ({symbol})")
                lone[symbol] = None
    return list(lone)


def translate_node(
    builder: Builder, node: fx.Node, module: fx.GraphModule, env: dict[fx.Node, Any]
) -> Result:
    if node.target is operator.getitem:
        return _pick(node, env)
    for source in node.all_input_nodes:
        if source.op == "get_attr" and source not in env:
            held = attribute(module, str(source.target))
            inner = isinstance(held, fx.GraphModule)
            env[source] = held if inner else tensor_constant(builder.graph, held)
    builder.node = node
    builder.graph.set_source(source_of(node))
    try:
        args = [map_argument(arg, env) for arg in node.args]
        kwargs = {name: map_argument(arg, env) for name, arg in node.kwargs.items()}
        rule = rule_of(node.target)
        assert rule is not None
        result = rule(builder, *args, **kwargs)
    except Unsupported as error:
        raise Refused(node, str(error)) from error
    except (TypeError, ValueError) as error:  # an attribute, which is known while compiling
        if float_numbers([node]):
            raise Refused(node, "a float that follows from sizes") from error
        if any(isinstance(source.meta.get("val"), torch.SymInt) for source in node.all_input_nodes):
            raise Refused(node, "a number known only while running") from error
        raise
    except Error as error:
        raise Refused(node, f"deepseek: {error}") from error
    _check(node, result)
    return result


def _pick(node: fx.Node, env: dict[fx.Node, Result]) -> Value:
    producer, index = node.args
    assert isinstance(producer, fx.Node)
    assert isinstance(index, int)
    results = env[producer]
    assert isinstance(results, (tuple, list))
    value = results[index]
    if value is None:
        raise Refused(producer, f"result {index} is not computed")
    return value


def _check(node: fx.Node, result: Result) -> None:
    """A translation must have the type that PyTorch says; a difference is a bug of ours, told at once."""
    values: Sequence[Any] = result if isinstance(result, tuple) else (result,)
    fakes = node.meta["val"] if isinstance(result, tuple) else (node.meta["val"],)
    for value, fake in zip(values, fakes, strict=False):
        if value is None or fake is None:
            continue
        got, expected = (list(value.shape), value.dtype), (dims(fake.shape), dtype_name(fake.dtype))
        if got[1] != expected[1] or len(got[0]) != len(expected[0]) or _differ(got[0], expected[0]):
            raise Refused(node, f"translated to {got[1]}{got[0]}, expected {expected[1]}{expected[0]}")


def _differ(got: Sequence[Any], expected: Sequence[Any]) -> bool:
    return any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(got, expected, strict=True)
    )


def attribute(module: torch.nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def inlined(builder: Builder, module: fx.GraphModule, values: Sequence[Any]) -> list[Value | None]:
    """What a graph within a graph computes of these values; None for results that it leaves out."""
    output = module.graph.output_node()
    inputs = module.graph.find_nodes(op="placeholder")
    env: dict[fx.Node, Any] = dict(zip(inputs, values, strict=True))
    nodes = [node for node in module.graph.nodes if node.op == "call_function" and not is_size(node)]
    refused = mark_refused(module.graph)
    for node in nodes:
        if node in refused:
            raise Refused(node, refused[node])
    given = [node for node in inputs if isinstance(node.meta.get("val"), torch.Tensor)]
    if lone_symbols(Island(nodes, given, [])) or float_numbers(nodes):
        raise Refused(output, "a number that is no size of an operand")
    for node in nodes:
        env[node] = translate_node(builder, node, module, env)
    leaves = output.args[0]
    results = []
    for leaf in leaves if isinstance(leaves, (list, tuple)) else [leaves]:
        value = env.get(leaf) if isinstance(leaf, fx.Node) else leaf
        if value is not None and not isinstance(value, Value):
            raise Refused(output, "a result that is no tensor")
        results.append(value)
    return results
