"""What a translation rule works with: the deepseek graph under construction and the TensorFlow op being
translated.

A rule is a function `rule(b, *inputs)` registered for TensorFlow op types with `@rule(...)`; attributes are
had by `b.attr(name)`. An input is a Value of the graph or a `Known` (`b.op` takes both), or one of the things
that TensorFlow's graphs pass along: a `Variable`, a tensor list. A rule returns what stands for the op's
result, or a tuple where it has several, with None for those that it does not compute. A rule raises
`Unsupported` for what deepseek has no op for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from deepseek import Graph, Value
from deepseek.tensorflow.shapes import Dim, Known, Size, Unsupported, dim, dtype_name, numpy_name, size

Tensor: TypeAlias = Value | Known
Item: TypeAlias = Any  # a Tensor, a Variable, a tensor list; None for what nothing computes
Rule: TypeAlias = Callable[..., Any]

RULES: dict[str, Rule] = {}
FOLDS: dict[str, Rule] = {}


def rule(*types: str) -> Callable[[Rule], Rule]:
    """Registers a function as the translation of these TensorFlow op types."""

    def register(function: Rule) -> Rule:
        for name in types:
            RULES[name] = function
        return function

    return register


def fold(*types: str) -> Callable[[Rule], Rule]:
    """Registers what computes an op of these types on arrays of ints and sizes: `function(b, *arrays)`."""

    def register(function: Rule) -> Rule:
        for name in types:
            FOLDS[name] = function
        return function

    return register


@dataclass(eq=False)
class Variable:
    """A variable of the function: a parameter of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: Any  # TensorFlow's variable


class Builder:
    """One deepseek graph, being made from the ops of a function; `outer`: what the graph is a part of."""

    def __init__(self, outer: Builder | None = None, refused: list[tuple[Any, str]] | None = None) -> None:
        self.graph = Graph()
        self.outer = outer
        self.refused: list[tuple[Any, str]] = (
            refused if refused is not None else outer.refused if outer else []
        )
        self.symbols: dict[str, Value] = {}  # a value of the graph that has the symbol as a dim, for each
        self.unrolled: int = (
            outer.unrolled if outer else 0
        )  # the most iterations of a loop that come one by one
        self.differentiable: bool = outer.differentiable if outer else False
        self.node: Any = None
        self.state: dict[Variable, Tensor] = {}  # what the variables hold
        self.assigned: list[Variable] = []
        self.captured: list[
            tuple[Value, Value]
        ] = []  # a value of `outer`, and the placeholder that stands for it
        self.least: dict[Value, int] = {}  # lower bounds of values
        self._constants: dict[int, tuple[Known, Value]] = {}

    def refuse(self, op: Any, reason: str) -> None:
        """Notes what deepseek lacks; the results of the op are then None, and so are those that need them."""
        if (op.name, reason) not in [(other.name, why) for other, why in self.refused]:
            self.refused.append((op, reason))

    # Adding to the graph.
    def op(self, name: str, *inputs: Tensor | None, **attrs: Any) -> Value:
        """Adds an op with one result."""
        result = self.graph.op(name, [self.maybe(x) for x in inputs], attrs)
        assert isinstance(result, Value), name
        return result

    def ops(self, name: str, *inputs: Tensor | None, **attrs: Any) -> tuple[Value, ...]:
        """Adds an op with several results."""
        result = self.graph.op(name, [self.maybe(x) for x in inputs], attrs)
        return result if isinstance(result, tuple) else (result,)

    def maybe(self, x: Tensor | None) -> Value | None:
        return None if x is None else self.value(x)

    def value(self, x: Tensor) -> Value:
        """The tensor as a value of the graph."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, Known):
            raise Unsupported(f"a tensor in place of {type(x).__name__}")
        found = self._constants.get(id(x))
        if found is None:
            found = (x, self._symbolic(x) if x.symbolic else self.graph.constant(x.values))
            self._constants[id(x)] = found
        return found[1]

    def _symbolic(self, x: Known) -> Value:
        values = [self.op("dim_value", dim=[dim(value)], dtype=x.dtype) for value in x.values.reshape(-1)]
        flat = self.op("concat", *(self.op("reshape", value, shape=[1]) for value in values), axis=0)
        return self.op("reshape", flat, shape=list(x.shape))

    def read(self, variable: Variable) -> Tensor:
        """What the variable holds."""
        if variable not in self.state:
            assert self.outer is not None
            self.state[variable] = self.capture(self.outer.value(self.outer.read(variable)))
        return self.state[variable]

    def capture(self, value: Value) -> Value:
        """A value of the graph around this one, as a value of this one."""
        for outside, inside in self.captured:
            if outside == value:
                return inside
        name = f"captured_{len(self.captured)}"
        inside = self.graph.placeholder(name, shape=list(value.shape), dtype=value.dtype)
        self.captured.append((value, inside))
        return inside

    # The op being translated.
    def attr(self, name: str) -> Any:
        value = self.node.get_attr(name)
        return value.decode() if isinstance(value, bytes) else value

    def result_dtype(self, index: int = 0) -> str:
        return dtype_name(self.node.outputs[index].dtype)

    # Inputs that must be known.
    def known(self, x: Item, what: str) -> np.ndarray[Any, Any]:
        if not isinstance(x, Known):
            raise Unsupported(f"{what} that is known before the run")
        return x.values

    def sizes(self, x: Item, what: str) -> list[Any]:
        """A known vector (or scalar) of ints and Sizes."""
        values = self.known(x, what).reshape(-1)
        return [value if isinstance(value, Size) else int(value) for value in values]

    def ints(self, x: Item, what: str) -> list[int]:
        sizes = self.sizes(x, what)
        if any(isinstance(value, Size) for value in sizes):
            raise Unsupported(f"{what} without symbols")
        return sizes

    def number(self, x: Item, what: str) -> Any:
        """A known scalar."""
        return self.known(x, what).reshape(-1)[0]

    # Short hands.
    def scalar(self, value: float, dtype: str) -> Value:
        return self.value(Known(np.array(value).astype(numpy_name(dtype)), dtype))

    def cast(self, x: Tensor, dtype: str) -> Value:
        value = self.value(x)
        return value if value.dtype == dtype else self.op("cast", value, dtype=dtype)

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Value:
        value = self.value(x)
        return value if list(value.shape) == list(shape) else self.op("reshape", value, shape=list(shape))

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Value:
        value = self.value(x)
        return value if list(perm) == list(range(len(perm))) else self.op("transpose", value, perm=list(perm))

    def swap(self, x: Tensor) -> Value:
        """The transpose of the last two axes."""
        perm = list(range(len(x.shape)))
        perm[-2:] = perm[:-3:-1]
        return self.transpose(x, perm)

    def slice_axis(self, x: Tensor, along: int, start: Any, limit: Any, step: int = 1) -> Value:
        """Elements start, start + step, ... below limit of one axis."""
        starts: list[Dim] = [0] * len(x.shape)
        limits, steps = list(x.shape), [1] * len(x.shape)
        starts[along], limits[along], steps[along] = dim(start), dim(limit), step
        return self.op("slice", x, starts=starts, limits=limits, steps=steps)


def sizes_of(x: Tensor) -> list[Any]:
    """The dims of a tensor, to calculate with."""
    return [size(d) for d in x.shape]


def axis(value: int, rank: int) -> int:
    return int(value) + rank if value < 0 else int(value)
