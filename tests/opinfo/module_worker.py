"""Runs the inputs of PyTorch's module database: tasks and answers as in worker.py, with other kinds.

inference      evaluation mode, without gradients
training       training mode: results, gradients of inputs and parameters, and what buffers hold afterwards
evaluation     the same in evaluation mode, of modules whose two modes differ
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepseek.torch as bridge
import torch
from torch._dynamo.utils import counters
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parent))

from worker import answer_each, difference, fresh, main, who_ran

torch._dynamo.config.allow_rnn = True


@dataclass
class Call:
    """A module and what it is called with."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, compiler: Callable[..., Any], gradient: bool, wide: bool = False) -> list[Any]:
        """Results, gradients and buffers of a copy of the module."""
        module = copy.deepcopy(self.module)
        module = module.double() if wide else module
        leaves, structure = pytree.tree_flatten((self.args, self.kwargs))
        tensors = fresh([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)], wide)
        given = iter(tensors)
        args, kwargs = pytree.tree_unflatten(
            [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure
        )
        torch.manual_seed(0)
        with torch.set_grad_enabled(gradient):
            results = pytree.tree_leaves(compiler(module)(*args, **kwargs))
        buffers = list(module.buffers())
        if not gradient:
            return results + buffers
        ends = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
        starts = [t for t in (*tensors, *module.parameters()) if t.requires_grad]
        if not ends or not starts:
            return results + buffers
        generator = torch.Generator().manual_seed(1)
        dys = [torch.rand(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in ends]
        gradients = torch.autograd.grad(ends, starts, dys, allow_unused=True)
        return [r.detach() if isinstance(r, torch.Tensor) else r for r in results] + [*gradients, *buffers]


def compiled(module: torch.nn.Module) -> Any:
    torch._dynamo.reset()
    counters.clear()
    bridge.reset()
    return torch.compile(module, backend="deepseek", dynamic=False, options={"threads": 1})


def traced(module: torch.nn.Module) -> Any:
    """As Dynamo traces it, run by PyTorch: without the encoders' fast path, which clears masked rows."""
    torch._dynamo.reset()
    return torch.compile(module, backend="eager", dynamic=False)


def check(call: Call, gradient: bool) -> tuple[str, str]:
    try:
        want = call(lambda module: module, gradient)
    except Exception as error:
        return "left", f"eager: {error}"
    try:
        got = call(compiled, gradient)
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    ran = who_ran()

    def differs(want: list[Any], compiler: Callable[..., Any]) -> str:
        return difference(got, want, lambda: call(compiler, gradient, wide=True))

    wrong = differs(want, lambda module: module)
    return ("wrong", wrong) if wrong and differs(call(traced, gradient), traced) else ran


def calls(info: Any, dtype: torch.dtype, training: bool) -> list[Call]:
    made = []
    for inputs in info.module_inputs_func(info, "cpu", dtype, requires_grad=True, training=training):
        if inputs.forward_input is None:
            continue
        torch.manual_seed(0)
        given = inputs.constructor_input
        module = info.module_cls(*given.args, **given.kwargs).to(dtype).train(training)
        made.append(Call(module, inputs.forward_input.args, inputs.forward_input.kwargs))
    return made


def run(task: dict[str, Any]) -> None:
    info = module_db[task["op"]]
    kind = task["kind"]
    samples = calls(info, getattr(torch, task["dtype"]), training=kind == "training")
    answer_each(task, samples, lambda call: check(call, kind != "inference"))


if __name__ == "__main__":
    main(run)
