"""Puts what a Python function of tensors computes into a graph that is traced already: steps of recurrent
layers, which come as one op, and what others need (pairs.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from deepseek.torch.library import decompositions
from deepseek.torch.partition import has_effect, tensors_of
from deepseek.torch.recurrent import STEPS

# What tells where a node comes from.
_SOURCE = ("stack_trace", "nn_module_stack", "fwd_nn_module_stack", "source_fn_stack")


def unroll(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target not in STEPS:
            continue
        results = expand(node, STEPS[node.target], node.args, node.kwargs)
        if isinstance(results, fx.Node):
            node.replace_all_uses_with(results)
            continue
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
    graph.eliminate_dead_code(has_effect)


def inline(graph: fx.Graph) -> None:
    """Puts regions that are compiled once for several calls (nested_compile_region) where they are called."""
    done = False
    while not done:
        done = True
        for node in graph.find_nodes(op="call_function", target=torch.ops.higher_order.invoke_subgraph):
            region, operands = _inner(node.args[0]), list(node.args[2:])
            inputs = region.graph.find_nodes(op="placeholder")
            if not all(_type(a) == _type(b) for a, b in zip(inputs, operands, strict=True)):
                continue
            results = _copied(node, region, operands)
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])
                graph.erase_node(user)
            graph.erase_node(node)
            done = False


def _type(argument: Any) -> str:
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else argument
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else str(value)


def expand(node: fx.Node, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Adds before `node` what the function computes; its results, with nodes in the place of tensors."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    leaves = [_inner(leaf) for leaf in leaves]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, fx.Node)]
    fakes = [leaves[i].meta["val"] for i in places]
    shape: list[pytree.TreeSpec] = []

    def call(*tensors: Tensor) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        args, kwargs = pytree.tree_unflatten(filled, structure)
        results, spec = pytree.tree_flatten(function(*args, **kwargs))
        shape[:] = [spec]
        return results

    fakes = [fake.resolve_conj().resolve_neg() for fake in fakes]  # as PyTorch does where values come in
    mode = detect_fake_mode(fakes or tensors_of(node.meta["val"]))
    assert mode is not None
    with mode, torch.no_grad():
        module = make_fx(call, decompositions())(*fakes)
    return pytree.tree_unflatten(_copied(node, module, [leaves[i] for i in places]), shape[0])


def _inner(leaf: Any) -> Any:
    """The graph within the graph that a node stands for; all else as it is."""
    if not isinstance(leaf, fx.Node) or leaf.op != "get_attr":
        return leaf
    held = attrgetter(str(leaf.target))(leaf.graph.owning_module)
    return held if isinstance(held, fx.GraphModule) else leaf


def _constant(graph: fx.Graph, value: Any) -> fx.Node:
    """What a copied graph holds, a tensor or a graph, as an attribute of the graph's module."""
    owner = graph.owning_module
    assert owner is not None
    taken = vars(owner).keys() | owner._buffers.keys() | owner._modules.keys()
    name = next(name for k in itertools.count() if (name := f"_copied_{k}") not in taken)
    setattr(owner, name, value)
    return graph.get_attr(name)


def _copied(node: fx.Node, module: fx.GraphModule, inputs: list[Any]) -> list[Any]:
    source = {key: node.meta[key] for key in _SOURCE if key in node.meta}
    copies: dict[fx.Node, fx.Node] = {}
    remaining = iter(inputs)
    with node.graph.inserting_before(node):
        for inner in module.graph.nodes:
            if inner.op == "placeholder":
                copies[inner] = next(remaining)
            elif inner.op == "output":
                return [copies.get(result) for result in inner.args[0]]
            elif inner.op == "get_attr":
                copies[inner] = _constant(node.graph, getattr(module, inner.target))
                copies[inner].meta = {**source, "val": inner.meta.get("val")}
            else:
                copies[inner] = node.graph.node_copy(inner, copies.__getitem__)
                copies[inner].meta = {**source, "val": inner.meta["val"]}
    raise AssertionError("a graph without an output")
