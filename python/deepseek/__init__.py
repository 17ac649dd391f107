"""DeepSeek: a deep-learning compiler. Graphs from PyTorch, ONNX or Python become machine code.

>>> import numpy as np, deepseek as ds
>>> graph = ds.Graph()
>>> x = graph.placeholder("x", shape=["batch", 2], dtype="float32")
>>> y = graph.relu(x, name="y")
>>> ds.compile(graph).run({"x": np.array([[-1, 2]], "float32")})["y"]
array([[0., 2.]], dtype=float32)

What needs PyTorch (`torch_compat`, `refresh`, compiling a torch.nn.Module) imports it when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepseek._core import Array, Op, Port, Roof, Value, default_threads, measured_roof, op_table
from deepseek.compiler import compile, load
from deepseek.errors import Error
from deepseek.executable import Context, Executable
from deepseek.graph import Graph
from deepseek.precisions import precision
from deepseek.tensor import Tensor

if TYPE_CHECKING:
    from deepseek import hdl
    from deepseek.onnx import export_onnx
    from deepseek.onnxruntime import for_onnxruntime, onnxruntime_library
    from deepseek.profiling import Profile, StepProfile, profile

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Context",
    "Error",
    "Executable",
    "Graph",
    "Op",
    "Port",
    "Profile",
    "Roof",
    "StepProfile",
    "Tensor",
    "Value",
    "compile",
    "default_threads",
    "export_onnx",
    "for_onnxruntime",
    "hdl",
    "load",
    "measured_roof",
    "onnxruntime_library",
    "op_table",
    "precision",
    "profile",
]

_FROM_TORCH = ("refresh", "torch_compat")
_FROM_ONNXRUNTIME = ("for_onnxruntime", "onnxruntime_library")
_FROM_PROFILING = ("Profile", "StepProfile", "profile")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _FROM_TORCH:
        return getattr(importlib.import_module("deepseek.torch"), name)
    if name in _FROM_ONNXRUNTIME:
        return getattr(importlib.import_module("deepseek.onnxruntime"), name)
    if name in _FROM_PROFILING:
        return getattr(importlib.import_module("deepseek.profiling"), name)
    if name == "export_onnx":
        return importlib.import_module("deepseek.onnx").export_onnx
    if name == "hdl":
        return importlib.import_module("deepseek.hdl")
    raise AttributeError(f"module 'deepseek' has no attribute {name!r}")
