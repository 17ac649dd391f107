"""`@deepseek.torch_compat`: code written for PyTorch, called with deepseek Tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

import deepseek
from deepseek.torch.compiler import backend

T = TypeVar("T")


def torch_compat(target: T) -> T:
    """Lets PyTorch code take and return `deepseek.Tensor`, compiled by this backend.

    `target` is a function, a method (decorated in the class body), a module, or a class of modules.
    Tensors are handed over without a copy, also inside lists, tuples and dicts. A call that gets a
    `deepseek.Tensor` computes without gradients and returns `deepseek.Tensor`s; any other call behaves as
    `torch.compile` does.
    """
    if isinstance(target, type):
        return _compatible_class(target)  # type: ignore[return-value]
    if isinstance(target, torch.nn.Module):
        return CompatibleModule(target)  # type: ignore[return-value]
    if not callable(target):
        raise TypeError(f"torch_compat takes a function, a method or a module, not {type(target).__name__}")
    compiled = torch.compile(target, backend=backend)

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(compiled, args, kwargs)

    return call  # type: ignore[return-value]


class CompatibleModule:
    """A module that takes deepseek Tensors; every other use goes to the module itself."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._compiled = torch.compile(module, backend=backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call(self._compiled, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __repr__(self) -> str:
        return f"torch_compat({self._module!r})"


def _compatible_class(base: type) -> type:
    if not issubclass(base, torch.nn.Module):
        raise TypeError(
            f"torch_compat takes a class of modules, not {base.__name__}; decorate its methods instead"
        )

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "_deepseek_compiled" not in self.__dict__:
            self.__dict__["_deepseek_compiled"] = torch.compile(
                functools.partial(base.__call__, self), backend=backend
            )
        return _call(self.__dict__["_deepseek_compiled"], args, kwargs)

    return type(
        base.__name__, (base,), {"__call__": call, "__doc__": base.__doc__, "__module__": base.__module__}
    )


def _call(compiled: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves, structure = pytree.tree_flatten((args, kwargs))
    if not any(isinstance(leaf, deepseek.Tensor) for leaf in leaves):
        return compiled(*args, **kwargs)
    leaves = [
        torch.utils.dlpack.from_dlpack(leaf) if isinstance(leaf, deepseek.Tensor) else leaf for leaf in leaves
    ]
    args, kwargs = pytree.tree_unflatten(leaves, structure)
    with torch.no_grad():
        result = compiled(*args, **kwargs)
    return pytree.tree_map_only(torch.Tensor, lambda tensor: deepseek.Tensor(tensor.detach()), result)
