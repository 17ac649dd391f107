"""Complex tensors as pairs of real ones: the graph is rewritten before it is split.

An op on complex tensors becomes what it is on real and imaginary parts. PyTorch's own views (`view_as_real`,
`view_as_complex`) stand where complex tensors enter and leave the graph; they cost nothing. An op without a
rule here gets its complex operands back and runs in PyTorch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from deepseek.torch import complex_rules
from deepseek.torch.complex_rules import Complex
from deepseek.torch.expansion import expand
from deepseek.torch.partition import has_effect, tensors_of
from deepseek.torch.shapes import Unsupported

aten = torch.ops.aten

BORDERS = frozenset({aten.view_as_real.default, aten.view_as_complex.default})
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Parts(NamedTuple):
    """Of a node with one or several complex results."""

    re: Any
    im: Any


def is_complex(node: fx.Node) -> bool:
    return any(tensor.dtype in REAL for tensor in tensors_of(node.meta.get("val")))


def static(tensor: Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape)


def rewrite(graph: fx.Graph) -> None:
    """Rewrites the graph in place; one without complex values stays as it is."""
    if not any(is_complex(node) for node in graph.nodes):
        return
    rewriter = _Rewriter(graph)
    for node in list(graph.nodes):
        rewriter.visit(node)
    graph.eliminate_dead_code(has_effect)


class _Rewriter:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.parts: dict[fx.Node, Parts] = {}
        self.whole: dict[fx.Node, fx.Node] = {}  # as complex tensors again

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self.give_back(node)
        if node.op != "call_function" or not any(map(is_complex, [node, *node.all_input_nodes])):
            return
        source = node.args[0] if node.target is operator.getitem else None
        if isinstance(source, fx.Node):
            if source in self.parts:
                self.parts[node] = Parts(*(part[node.args[1]] for part in self.parts[source]))
            return
        try:
            result = self.on_parts(node)
        except Unsupported:
            self.give_back(node)
            return
        if isinstance(result, Parts):
            self.parts[node] = result
        else:
            node.replace_all_uses_with(result)

    def on_parts(self, node: fx.Node) -> Any:
        """The nodes of an op's results: Parts where they are complex."""
        rule = complex_rules.RULES.get(node.target)
        if rule is None:
            raise Unsupported(f"{node.target} of complex tensors")
        fakes = tensors_of(node.meta["val"])
        if not all(map(static, fakes)):
            raise Unsupported("complex tensors of symbolic size")
        dtypes = [REAL.get(fake.dtype, fake.dtype) for fake in fakes]

        def given(source: fx.Node) -> Any:
            return Complex(*self.of(source, node)) if is_complex(source) else source

        def computed(*args: Any, **kwargs: Any) -> Any:
            return _cast(rule(*args, **kwargs), dtypes)

        arguments = pytree.tree_map_only(fx.Node, given, (node.args, node.kwargs))
        results = self.traced(node, computed, arguments[0], arguments[1])
        several = isinstance(node.meta["val"], (tuple, list))
        if not any(fake.dtype in REAL for fake in fakes):
            return results if several else results[0]
        columns = list(zip(*results, strict=True)) if several else results[0]
        return Parts(*columns)

    def of(self, node: fx.Node, before: fx.Node) -> Parts:
        if node not in self.parts:
            pair = self.traced(before, lambda x: [torch.view_as_real(x)], [node], {})[0]
            self.parts[node] = Parts(
                *self.traced(before, lambda x: [x.select(-1, 0), x.select(-1, 1)], [pair], {})
            )
        return self.parts[node]

    def give_back(self, node: fx.Node) -> None:
        """Makes the node's complex operands complex tensors again."""
        for source in node.all_input_nodes:
            if source not in self.parts or source.op in ("placeholder", "get_attr"):
                continue
            if source not in self.whole:
                parts = list(self.parts[source])
                pair = self.traced(node, lambda re, im: [torch.stack([re, im], -1)], parts, {})[0]
                with self.graph.inserting_before(node):
                    self.whole[source] = self.graph.call_function(aten.view_as_complex.default, (pair,))
                self.whole[source].meta = dict(source.meta)
            node.replace_input_with(source, self.whole[source])

    def traced(self, node: fx.Node, function: Callable[..., Any], args: Any, kwargs: Any) -> list[Any]:
        tensors = [
            leaf.meta["val"] for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, fx.Node)
        ]
        if not all(isinstance(tensor, Tensor) and static(tensor) for tensor in tensors):
            raise Unsupported("complex tensors of symbolic size")
        return list(expand(node, function, args, kwargs))


def _cast(results: Any, dtypes: list[torch.dtype]) -> list[Any]:
    """A rule's results as a list, in the dtypes that PyTorch gives them."""
    results = results if isinstance(results, list) else [results]
    return [
        Complex(result.re.to(dtype), result.im.to(dtype)) if isinstance(result, Complex) else result.to(dtype)
        for result, dtype in zip(results, dtypes, strict=True)
    ]
