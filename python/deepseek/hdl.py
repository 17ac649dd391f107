"""The hardware description layer: every op of the table as a function on arrays, on any target.

>>> from deepseek import hdl
>>> hdl.matmul([[1.0, 2.0]], [[3.0], [4.0]])
Tensor([[11.0]], dtype=float32)

Inputs are Tensors or anything that becomes one; results are NumPy's arrays when every array that came was
one, Tensors otherwise. Attributes are keywords, and `target=` says where it runs. Each combination of op,
dtypes, shapes and attributes is compiled once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepseek import _core
from deepseek.compiler import compile
from deepseek.executable import Executable
from deepseek.graph import Graph, attribute_name, bind_inputs, python_name, signature
from deepseek.tensor import Tensor

_KEPT = 512  # compiled ops that are remembered
_compiled: OrderedDict[Any, Executable] = OrderedDict()
_ops = {python_name(name): name for name in _core.op_names()}
_functions: dict[str, Callable[..., Any]] = {}


def run_op(op: str, inputs: Sequence[Any], attrs: dict[str, Any], target: str = "auto") -> Any:
    """Runs any op by name. None stands for an optional input that is absent."""
    tensors = _tensors(inputs)
    kinds = tuple(None if t is None else (t.dtype, t.shape) for t in tensors)
    key = (op, target, kinds, repr(sorted(attrs.items())))
    executable = _compiled.get(key)
    if executable is None:
        executable = _compile(op, kinds, attrs, target)
        _compiled[key] = executable
        if len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    results = executable(*[t for t in tensors if t is not None])
    given = [value for value in inputs if value is not None and not isinstance(value, (bool, int, float))]
    if given and all(isinstance(value, np.ndarray) for value in given):
        return tuple(r.numpy() for r in results) if isinstance(results, tuple) else results.numpy()  # type: ignore[union-attr]
    return results


def conv2d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    target: str = "auto",
) -> Any:
    """Convolution of x [N, C, H, W] with kernel [O, C/groups, KH, KW], plus bias [O]; `conv` has the rest."""

    def pair(value: int | tuple[int, int]) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    attrs = {
        "strides": pair(stride),
        "pad_low": pair(padding),
        "pad_high": pair(padding),
        "kernel_dilation": pair(dilation),
        "feature_groups": groups,
    }
    y = run_op("conv", [x, kernel], attrs, target)
    if bias is None:
        return y
    shape = [*Tensor(bias).shape, 1, 1]
    return run_op("add", [y, run_op("reshape", [bias], {"shape": shape}, target)], {}, target)


def _tensors(inputs: Sequence[Any]) -> list[Tensor | None]:
    """Numbers take the dtype of the first array."""
    numbers = (bool, int, float)
    arrays = [None if x is None or isinstance(x, numbers) else Tensor(x) for x in inputs]
    dtype = next((array.dtype for array in arrays if array is not None), None)
    return [
        Tensor(x, dtype) if isinstance(x, numbers) else array for x, array in zip(inputs, arrays, strict=True)
    ]


def _compile(op: str, kinds: Sequence[Any], attrs: dict[str, Any], target: str) -> Executable:
    graph = Graph()
    values = [
        None if kind is None else graph.placeholder(f"x{i}", shape=kind[1], dtype=kind[0])
        for i, kind in enumerate(kinds)
    ]
    results = graph.op(op, values, attrs)
    for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
        graph.output(f"y{i}", result)
    executable: Executable = compile(graph, target=target)
    return executable


def _function(op: _core.Op) -> Callable[..., Any]:
    names = [given.name for given in op.inputs]
    variadic = bool(op.inputs) and op.inputs[-1].variadic

    def function(*args: Any, target: str = "auto", **kwargs: Any) -> Any:
        inputs = bind_inputs(op.name, names, variadic, args, kwargs)
        return run_op(op.name, inputs, {attribute_name(key): value for key, value in kwargs.items()}, target)

    function.__name__ = op.name
    function.__doc__ = op.doc
    parameters = [p for p in signature(op).parameters.values() if p.name not in ("self", "name")]
    function.__signature__ = signature(op).replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in _functions:
        if name not in _ops:
            raise AttributeError(f"deepseek.hdl has no op {name!r}")
        _functions[name] = _function(_core.op_info(_ops[name]))
    return _functions[name]


def __dir__() -> list[str]:
    return [*_ops, "conv2d", "run_op"]


__all__ = ["conv2d", "run_op"]
