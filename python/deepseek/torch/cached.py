"""What torch.compile compiled, kept on disk by PyTorch's AOTAutogradCache: the next process starts warm.

PyTorch makes the key of the graph that Dynamo traced, of its inputs' types, guards and of its own settings;
`kept` adds ours. An entry holds executables as `Executable.save` writes them. It lies in PyTorch's cache
folder (TORCHINDUCTOR_CACHE_DIR); what cannot be read, or was made by another build, is compiled anew.
DEEPSEEK_CACHE=off or PyTorch's TORCHINDUCTOR_AUTOGRAD_CACHE=0 turns it off.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._functorch import config
from torch._functorch._aot_autograd.autograd_cache import (
    BypassAOTAutogradCache,
    should_use_local_autograd_cache,
)
from torch._inductor.output_code import OutputCode
from torch.utils._python_dispatch import _disable_current_modes

from deepseek import Error, _core
from deepseek.torch import report
from deepseek.torch.program import Function, function_of


class Compiled(OutputCode):
    """A graph's compiled function, which PyTorch's cache can keep."""

    def __init__(self, source: str, constants: dict[str, Any], record: report.Record) -> None:
        super().__init__()
        self._boxed_call = True  # AOT Autograd's word for taking one list, looked for in __dict__
        self.parts: Any = (source, constants, record)
        self.run: Function | None = function_of(source, constants)

    def __call__(self, inputs: Any) -> Any:
        return self.run(inputs)  # type: ignore[misc]

    def prepare_for_serialization(self) -> None:
        """PyTorch calls this on the copy that it keeps."""
        try:
            self.parts = _dumped(self.parts)
        except (Error, pickle.PicklingError, TypeError, AttributeError) as error:
            raise BypassAOTAutogradCache(str(error)) from error
        self.run = None

    def post_compile(self, example_inputs: Sequence[Any], constants: Any, graph_kwargs: Any) -> None:
        """PyTorch calls this on what it found in its cache."""
        with _disable_current_modes():
            self.parts = pickle.loads(self.parts)
        source, named, record = self.parts
        self.run = function_of(source, named)
        report.RECORDS.append(record)

    def set_triton_bundle(self, triton_bundle: Any) -> None:
        pass


def kept(module: fx.GraphModule, *settings: object) -> AbstractContextManager[Any]:
    """Within, AOT Autograd looks for what it compiles in its cache, under these settings, and fills it."""
    patches = ExitStack()
    if not should_use_local_autograd_cache():
        return patches
    if os.environ.get("DEEPSEEK_CACHE") == "off" or _holds_numbers(module):
        patches.enter_context(config.patch(enable_autograd_cache=False))
        return patches
    tag = " ".join(map(str, (torch.compiler.config.cache_key_tag, _build(), *settings)))
    patches.enter_context(torch.compiler.config.patch(cache_key_tag=tag))  # type: ignore[attr-defined]
    # Entries have both passes in them; a backward pass compiled at its first run would come too late.
    patches.enter_context(config.patch(bundled_autograd_cache=True, force_non_lazy_backward_lowering=True))
    return patches


def _holds_numbers(module: fx.GraphModule) -> bool:
    """Whether tensors are part of the graph: PyTorch's key has their types, not what is in them."""
    return any(
        node.op == "get_attr" and isinstance(getattr(module, str(node.target), None), torch.Tensor)
        for node in module.graph.nodes
    )


@cache
def _build() -> str:
    """The compiler's build, the machine's instruction set and, where the package is worked on, its files."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    stamps = repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return f"deepseek {_core.build_and_machine()} {hashlib.sha256(stamps.encode()).hexdigest()}"


class _Pickler(pickle.Pickler):
    """Ops go by name."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch._ops.OpOverload):
            return _op, (value.namespace, *value._schema.name.split("::")[1:], value._overloadname)
        if isinstance(value, torch._ops.HigherOrderOperator):
            return getattr, (torch.ops.higher_order, str(value))
        return NotImplemented


def _op(namespace: str, name: str, overload: str) -> Any:
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _dumped(parts: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream).dump(parts)
    return stream.getvalue()
