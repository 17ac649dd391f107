"""What a translation rule works with: the deepseek graph under construction and the FX node being
translated.

A rule is a function `rule(b, *args, **kwargs)` registered for ATen overloads with `@rule(...)`. Its
arguments are the FX node's, with tensors replaced by deepseek Values (a tuple of them for nodes with
several results) and sizes by ints or dim text. It returns a Value, or a tuple with None for results that
nothing uses. A rule raises `Unsupported` for what deepseek has no op for; the node then runs in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import sympy
import torch
from torch import fx

from deepseek import Graph, Value
from deepseek.torch.shapes import (
    DTYPE_NAMES,
    TORCH_DTYPES,
    Dim,
    Unsupported,
    dim,
    dims,
    dtype_name,
    expression,
)

Scalar: TypeAlias = bool | int | float
Operand: TypeAlias = Value | Scalar | str  # the text is a symbolic size
Result: TypeAlias = Value | tuple[Value | None, ...]
Rule: TypeAlias = Callable[..., Result]

RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Registers a function as the translation of these ATen overloads. A name stands for an operator of
    another library, which may come later.
    """

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def rule_of(target: Any) -> Rule | None:
    found = RULES.get(target)
    return (
        RULES.get(target._schema.name)
        if found is None and isinstance(target, torch._ops.OpOverload)
        else found
    )


class Builder:
    """One deepseek graph, being made from FX nodes."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.node: fx.Node | None = None

    def op(self, name: str, *inputs: Value | None, **attrs: Any) -> Value:
        """Adds an op with one result."""
        result = self.graph.op(name, list(inputs), attrs)
        assert isinstance(result, Value)
        return result

    def ops(self, name: str, *inputs: Value | None, **attrs: Any) -> tuple[Value, ...]:
        """Adds an op with several results."""
        result = self.graph.op(name, list(inputs), attrs)
        return result if isinstance(result, tuple) else (result,)

    def gradient(
        self,
        name: str,
        inputs: Sequence[Value | None],
        attrs: dict[str, Any],
        dys: Sequence[Value],
        needed: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Gradients of the inputs of op `name` for gradients `dys` of its results; None where not needed."""
        return self.graph.gradient(name, list(inputs), attrs, list(dys), list(needed))

    # The node being translated, as PyTorch sees it.
    def fake(self, index: int | None = None) -> torch.Tensor:
        assert self.node is not None
        value = self.node.meta["val"]
        fake: torch.Tensor = value if index is None else value[index]
        return fake

    def shape(self, index: int | None = None) -> list[Dim]:
        """Shape of the node's result (of result `index` where it has several)."""
        return dims(self.fake(index).shape)

    def dtype(self, index: int | None = None) -> str:
        return dtype_name(self.fake(index).dtype)

    def argument(self, index: int) -> torch.Tensor:
        """The node's argument as a fake tensor, or as the scalar that it is (for a float of sizes: any)."""
        assert self.node is not None
        arg = self.node.args[index]
        fake: Any = arg.meta["val"] if isinstance(arg, fx.Node) else arg
        return 1.0 if isinstance(fake, torch.SymFloat) else fake  # type: ignore[return-value]

    def size_argument(self, index: int) -> sympy.Expr | None:
        """The node's argument as a size expression; None where it is absent."""
        assert self.node is not None
        arg = self.node.args[index] if index < len(self.node.args) else None
        value = arg.meta["val"] if isinstance(arg, fx.Node) else arg
        return None if value is None else expression(value)

    def uses(self, index: int) -> bool:
        """Whether result `index` of a node with several is used."""
        assert self.node is not None
        return any(user.args[1] == index for user in self.node.users if user.op == "call_function")

    # Values.
    def constant(self, value: Scalar, dtype: str) -> Value:
        if dtype in ("bfloat16", "float16"):
            return self.op("cast", self.graph.constant(np.array(value, "float32")), dtype=dtype)
        return self.graph.constant(np.array(value).astype(dtype))  # integers wrap, as PyTorch's do

    def cast(self, value: Value, dtype: str) -> Value:
        return value if value.dtype == dtype else self.op("cast", value, dtype=dtype)

    def wide(self, *values: Value | None) -> list[Value | None]:
        """These in one dtype to compute in: float64 where one of them is, else float32 for floats."""
        narrow = ("bfloat16", "float16")
        given = {value.dtype for value in values if value is not None}
        dtype = "float64" if "float64" in given else "float32"
        if len(given) < 2 and not given & set(narrow):
            return list(values)
        return [None if value is None else self.cast(value, dtype) for value in values]

    def as_traced(self, *values: Value | None) -> tuple[Value | None, ...]:
        """The node's several results in the dtypes that PyTorch gives them."""
        return tuple(
            None if value is None else self.cast(value, self.dtype(i)) for i, value in enumerate(values)
        )

    def tensor(self, value: Operand, dtype: str) -> Value:
        """A tensor, a number or a size as a Value of that dtype."""
        if isinstance(value, (bool, int, float)):
            return self.constant(value, dtype)
        if isinstance(value, str):
            return self.op("dim_value", dim=[value], dtype=dtype)
        return self.cast(value, dtype)

    def operands(self, *values: Operand) -> tuple[Value, ...]:
        """These in the dtype of the node's result; in float32 where that is shorter and one of them is a
        number that it cannot hold: eager PyTorch rounds no number.
        """
        dtype = self.dtype()
        if dtype in ("bfloat16", "float16") and any(_is_long(value, dtype) for value in values):
            dtype = "float32"
        return tuple(self.tensor(value, dtype) for value in values)

    def arithmetic(self, name: str, *values: Operand) -> Value:
        """An op of one result on `operands`, in the dtype of the node's result."""
        return self.cast(self.op(name, *self.operands(*values)), self.dtype())

    def promoted(self, x: Operand, y: Operand) -> tuple[Value, Value]:
        """Both operands in the dtype to which PyTorch promotes the node's first two arguments."""
        dtype = dtype_name(torch.result_type(self.argument(0), self.argument(1)))
        return self.tensor(x, dtype), self.tensor(y, dtype)

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if list(x.shape) == list(shape) else self.op("reshape", x, shape=list(shape))

    def broadcast(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if list(x.shape) == list(shape) else self.op("broadcast_to", x, shape=list(shape))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        return x if list(perm) == list(range(len(x.shape))) else self.op("transpose", x, perm=list(perm))

    def swap(self, x: Value, first: int = -2, second: int = -1) -> Value:
        """The transpose of two axes."""
        perm = list(range(len(x.shape)))
        perm[first], perm[second] = perm[second], perm[first]
        return self.transpose(x, perm)


def _is_long(x: Operand, dtype: str) -> bool:
    if isinstance(x, Value):
        return not x.shape and x.dtype in ("float32", "float64")
    return isinstance(x, float) and float(torch.tensor(x, dtype=TORCH_DTYPES[dtype])) != x


def loop(
    b: Builder,
    state: dict[str, Value],
    fixed: dict[str, Value],
    condition: Callable[[Builder, dict[str, Value]], Value],
    body: Callable[[Builder, dict[str, Value]], dict[str, Value]],
) -> dict[str, Value]:
    """The state after `body`, which gives it anew, has run while `condition` holds for any element.

    Both get a builder of their own and all values, those in `fixed` as they are.
    """
    given = state | fixed

    def part() -> tuple[Builder, dict[str, Value]]:
        inner = Builder()
        return inner, {
            name: inner.graph.placeholder(name, shape=list(value.shape), dtype=value.dtype)
            for name, value in given.items()
        }

    test, values = part()
    holds = test.cast(condition(test, values), "int64")
    axes = list(range(len(holds.shape)))
    count = test.op("sum", holds, axes=axes, keepdims=False) if axes else holds
    test.graph.output("holds", test.op("greater", count, test.constant(0, "int64")))
    step, values = part()
    following = body(step, values)
    for name in state:
        step.graph.output(name, following[name])
    last = b.ops("while", *given.values(), condition=test.graph, body=step.graph, carried=len(state))
    return dict(zip(state, last, strict=True))


def map_argument(value: Any, env: dict[fx.Node, Result]) -> Any:
    """An FX argument with nodes replaced by their Values and sizes by dims."""
    if isinstance(value, fx.Node):
        meta = value.meta.get("val")
        if isinstance(meta, (int, torch.SymInt)) and not isinstance(meta, bool):
            return dim(meta)
        if isinstance(meta, (float, bool)):
            return meta
        if value not in env:
            raise Unsupported(f"argument {value.name} is no tensor")
        return env[value]
    if isinstance(value, torch.SymInt):
        return dim(value)
    if isinstance(value, (list, tuple)):
        return [map_argument(item, env) for item in value]
    return value


def axis(value: int, rank: int) -> int:
    return value + rank if value < 0 else value


def axes(values: int | Sequence[int] | None, rank: int) -> list[int]:
    """Axes from 0, sorted; all of them when none are given."""
    if isinstance(values, int):
        values = [values]
    if not values or rank == 0:
        return list(range(rank))
    return sorted({axis(value, rank) for value in values})


def supported_dtype(dtype: torch.dtype) -> bool:
    return dtype in DTYPE_NAMES
