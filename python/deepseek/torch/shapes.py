"""Dtypes and dims at the border between PyTorch and deepseek.

PyTorch's symbolic sizes are sympy expressions over its own symbols; deepseek's dims are text in the
grammar of `Dim::parse` ("s0*2+1", "floordiv(s0,2)"). What that lacks, as rounding (trunc(1.5*s0)), stands
there as a symbol of its own, an opaque one. The same printer also writes Python source, with which a
compiled piece works out the sizes of its results from the symbols' values.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import TypeAlias

import sympy
import torch
from torch.utils._sympy import functions as torch_sympy
from torch.utils._sympy.printers import PythonPrinter

Dim: TypeAlias = int | str
SymbolValues: TypeAlias = dict[str, int]

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.bool: "bool",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int16: "int16",
    torch.uint16: "uint16",
    torch.int32: "int32",
    torch.uint32: "uint32",
    torch.int64: "int64",
    torch.uint64: "uint64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
}
TORCH_DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()}
INTEGER_NAMES = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})


class Unsupported(Exception):
    """This node cannot be expressed in deepseek's ops; it runs in PyTorch. The text says why."""


def dtype_name(dtype: torch.dtype) -> str:
    if dtype not in DTYPE_NAMES:
        raise Unsupported(f"dtype {dtype}")
    return DTYPE_NAMES[dtype]


def expression(value: int | torch.SymInt | sympy.Expr) -> sympy.Expr:
    """The sympy expression of a size."""
    if isinstance(value, torch.SymInt):
        return sympy.expand(value.node.expr)
    return sympy.sympify(value)


def dim(value: int | torch.SymInt | sympy.Expr) -> Dim:
    """A size in deepseek's terms: an int, or text that `Dim::parse` reads."""
    if isinstance(value, int):
        return value
    expr = expression(value)
    return int(expr) if expr.is_Integer else _text(expr, python=False)


def dims(values: Iterable[int | torch.SymInt]) -> list[Dim]:
    return [dim(value) for value in values]


def product(sizes: Iterable[Dim]) -> Dim:
    """How many elements a box of these sizes has."""
    known, symbolic = 1, []
    for size in sizes:
        if isinstance(size, int):
            known *= size
        else:
            symbolic.append(f"({size})")
    return "*".join([*symbolic, str(known)]) if symbolic else known


def python_source(value: int | torch.SymInt | sympy.Expr) -> str:
    """A Python expression over the symbols' names, `math` and `torch` with the size's value."""
    return _text(expression(value), python=True)


def pytorch_symbols_of(value: int | torch.SymInt | sympy.Expr) -> set[str]:
    """The symbols in `python_source` of a size."""
    return {str(symbol) for symbol in expression(value).free_symbols}


def symbols_of(value: int | torch.SymInt) -> set[str]:
    """The symbols in `dim` of a size."""
    return set(_NAME.findall(str(dim(value)))) - {text.partition("(")[0] for text, _ in _FUNCTIONS.values()}


def is_symbol(value: int | torch.SymInt) -> bool:
    """Whether a size is one symbol and nothing else in deepseek's terms."""
    return str(dim(value)).isidentifier()


def meaning(symbol: str) -> sympy.Expr:
    """The size that a symbol in `dim` stands for, in PyTorch's symbols."""
    return _OPAQUE.get(symbol, sympy.Symbol(symbol))


def may_be_negative(value: torch.SymInt, symbol: str) -> bool:
    """Whether a symbol in `dim` of this size may be."""
    environment = value.node.shape_env
    if symbol in _OPAQUE:
        return bool(environment.bound_sympy(_OPAQUE[symbol]).lower < 0)
    return any(str(name) == symbol and bound.lower < 0 for name, bound in environment.var_to_range.items())


_NAME = re.compile(r"[A-Za-z_]\w*")
_OPAQUE: dict[str, sympy.Expr] = {}
_PRINTER = PythonPrinter()

_FUNCTIONS: dict[type, tuple[str, str]] = {  # sympy function: (deepseek's text, Python's)
    torch_sympy.FloorDiv: ("floordiv({0},{1})", "(({0}) // ({1}))"),
    torch_sympy.CleanDiv: ("floordiv({0},{1})", "(({0}) // ({1}))"),
    torch_sympy.Mod: ("mod({0},{1})", "(({0}) % ({1}))"),
    torch_sympy.PythonMod: ("mod({0},{1})", "(({0}) % ({1}))"),
    torch_sympy.Max: ("max({0},{1})", "max({0}, {1})"),
    torch_sympy.Min: ("min({0},{1})", "min({0}, {1})"),
}


def _text(expr: sympy.Expr, python: bool) -> str:
    if expr.is_Integer:
        return str(int(expr))
    if expr.is_Symbol:
        return str(expr)
    if expr.is_Add:
        return "+".join(_text(term, python) for term in expr.args).replace("+-", "-")
    if expr.is_Mul:
        return "*".join(_factor(factor, python) for factor in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and int(expr.exp) > 0:
        return "*".join([_factor(expr.base, python)] * int(expr.exp))
    if type(expr) in _FUNCTIONS:
        args = [_text(sympy.expand(arg), python) for arg in expr.args]
        template = _FUNCTIONS[type(expr)][1 if python else 0]
        folded = args[0]
        for arg in args[1:]:
            folded = template.format(folded, arg)
        return folded
    if not expr.is_integer:
        raise Unsupported(f"a size of the form {expr}")
    return f"({_PRINTER.doprint(expr)})" if python else _opaque(expr)


def _opaque(expr: sympy.Expr) -> str:
    name = f"size_{zlib.crc32(str(expr).encode()):08x}"  # the same in every process
    _OPAQUE[name] = expr
    return name


def _factor(expr: sympy.Expr, python: bool) -> str:
    text = _text(expr, python)
    return f"({text})" if expr.is_Add else text
