"""Graphs with a method per op, made from the op table."""

from __future__ import annotations

import functools
import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from deepseek import _core
from deepseek._core import Value
from deepseek.arrays import as_numpy, dtype_name, to_array
from deepseek.errors import invalid

Operand: TypeAlias = Any
"""A Value of the graph, a number, or an array that becomes a constant."""
Result: TypeAlias = Any
"""A Value, or a tuple of Values for ops with several results."""


class Graph(_core.Graph):
    """A graph of tensor operations. Every op of the table is a method:

    `graph.matmul(a, b, name="c")`. Inputs are Values, numbers, or arrays, which become constants;
    attributes are keywords. Outputs are the results that nothing uses, or those named by `output`.
    """

    if TYPE_CHECKING:  # the ops' methods

        def __getattr__(self, op: str) -> Callable[..., Result]: ...

    def placeholder(
        self, name: str, shape: Sequence[int | str], dtype: Any = "float32", role: str = "argument"
    ) -> Value:
        """An input. Dims may be symbolic: "batch", "2*N+1". A "parameter" changes rarely."""
        return super().placeholder(name, list(shape), dtype_name(dtype), role)

    def constant(self, data: Any, name: str = "", dtype: Any = None) -> Value:
        """A constant with a copy of the data (a read-only array is not copied)."""
        values = as_numpy(data)
        if dtype is not None:
            from deepseek.arrays import numpy_dtype

            values = values.astype(numpy_dtype(dtype_name(dtype)), copy=False)
        copy = values.flags.writeable
        return self.array_constant(to_array(values, dtype_name(values.dtype), copy), name)

    def op(
        self,
        op: str,
        inputs: Sequence[Operand | None],
        attrs: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> Result:
        """Adds any op by name. None stands for an optional input that is absent."""
        given = {key: _attribute(op, key, value) for key, value in (attrs or {}).items()}
        return self.add_op(op, self._values(inputs), given, name)

    def gradient(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Any],
        dys: Sequence[Value | None],
        needed: Sequence[bool],
    ) -> list[Value | None]:
        """Adds the gradients of the inputs of an op for gradients of its results; None where not needed."""
        given = {key: _attribute(op, key, value) for key, value in attrs.items()}
        return super().gradient(op, inputs, given, dys, needed)

    def _values(self, inputs: Sequence[Operand | None]) -> list[Value | None]:
        dtype = next((value.dtype for value in inputs if isinstance(value, Value)), None)
        return [
            value if value is None or isinstance(value, Value) else self._lift(value, dtype)
            for value in inputs
        ]

    def _lift(self, value: Any, dtype: str | None) -> Value:
        if isinstance(value, (bool, int, float, np.number, np.bool_)) and dtype is not None:
            return self.scalar(float(value), dtype)
        if isinstance(value, float):
            return self.scalar(value, "float32")
        return self.constant(value)


def _attribute(op: str, key: str, value: Any) -> Any:
    """An attribute in the form that the C++ side takes."""
    kind = _kinds(op).get(key)
    if value is None or kind is None:
        return value
    if kind == "dtype":
        return dtype_name(value)
    if kind == "array":
        values = as_numpy(value)
        return to_array(values, dtype_name(values.dtype), True)
    if kind in ("list[int]", "list[float]", "shape") and isinstance(value, np.ndarray):
        return value.tolist()
    if kind == "shape" and isinstance(value, (int, str, np.integer)):
        return [int(value) if isinstance(value, np.integer) else value]
    return value


@functools.cache
def _kinds(op: str) -> dict[str, str]:
    """Kinds of the op's attributes; none for an op that is not there, which is refused elsewhere."""
    return {attr.name: attr.kind for attr in _core.op_info(op).attrs} if op in _core.op_names() else {}


def python_name(name: str) -> str:
    """An op's or attribute's name where Python's keywords cannot stand: "lambda" is `lambda_`."""
    return name + "_" if keyword.iskeyword(name) else name


def attribute_name(name: str) -> str:
    """The attribute that a keyword argument means."""
    return name[:-1] if keyword.iskeyword(name[:-1]) and name.endswith("_") else name


def signature(op: _core.Op) -> inspect.Signature:
    """How the op's method is called."""
    kinds = inspect.Parameter
    parameters = [kinds("self", kinds.POSITIONAL_ONLY)]
    for i, given in enumerate(op.inputs):
        if given.variadic:
            parameters.append(kinds(given.name, kinds.VAR_POSITIONAL))
        else:
            may_lack = all(later.optional for later in op.inputs[i:])
            default = None if may_lack else kinds.empty
            parameters.append(kinds(given.name, kinds.POSITIONAL_OR_KEYWORD, default=default))
    for attr in op.attrs:
        value = kinds.empty if attr.required else attr.default
        parameters.append(kinds(python_name(attr.name), kinds.KEYWORD_ONLY, default=value))
    parameters.append(kinds("name", kinds.KEYWORD_ONLY, default=""))
    return inspect.Signature(parameters)


def bind_inputs(
    op: str, names: Sequence[str], variadic: bool, args: Sequence[Any], kwargs: dict[str, Any]
) -> list[Any]:
    """The op's inputs in order, from a call's arguments; takes those given by name out of `kwargs`."""
    if variadic:
        fixed = len(names) - 1
        rest = args[fixed:]
        if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
            rest = rest[0]
        return [*args[:fixed], *rest]
    if len(args) > len(names):
        raise invalid(
            op, f"at most {len(names)} inputs ({', '.join(names)}) and attributes by name", str(len(args))
        )
    inputs = list(args)
    for name in names[len(args) :]:
        inputs.append(kwargs.pop(name, None))
    while inputs and inputs[-1] is None:
        inputs.pop()
    return inputs


def _method(op: _core.Op) -> Callable[..., Result]:
    op_name, names = op.name, [given.name for given in op.inputs]
    variadic = bool(op.inputs) and op.inputs[-1].variadic

    def method(self: Graph, *args: Operand, **kwargs: Any) -> Result:
        name = kwargs.pop("name", "")
        inputs = bind_inputs(op_name, names, variadic, args, kwargs)
        return self.op(op_name, inputs, {attribute_name(key): value for key, value in kwargs.items()}, name)

    method.__name__ = op_name
    method.__qualname__ = f"Graph.{op_name}"
    method.__doc__ = op.doc
    return method


class _Method:
    """An op as an attribute of Graph, made into a function when it is first asked for."""

    def __init__(self, op: str) -> None:
        self.op = op

    @functools.cached_property
    def call(self) -> Callable[..., Result]:
        return _method(_core.op_info(self.op))

    def __get__(self, graph: Graph | None, owner: type) -> Any:
        if graph is not None:
            return self.call.__get__(graph, owner)
        if not hasattr(self.call, "__signature__"):
            self.call.__signature__ = signature(_core.op_info(self.op))  # type: ignore[attr-defined]
        return self.call


for _op in _core.op_names():
    if not hasattr(Graph, python_name(_op)):
        setattr(Graph, python_name(_op), _Method(_op))
