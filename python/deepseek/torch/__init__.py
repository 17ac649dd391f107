"""The PyTorch side of deepseek. Importing it imports PyTorch; `import deepseek` alone does not.

`torch.compile(model, backend="deepseek")` compiles for inference and training; ops that we lack run in
PyTorch, and `explain()` says which and why. `compile_module` makes an Executable of a module,
`torch_compat` lets a function written with PyTorch take and return `deepseek.Tensor`.
"""

from deepseek.torch.compat import torch_compat
from deepseek.torch.compiler import Options, backend
from deepseek.torch.export import compile_module
from deepseek.torch.piece import refresh
from deepseek.torch.report import Explanation, explain, reset

__all__ = [
    "Explanation",
    "Options",
    "backend",
    "compile_module",
    "explain",
    "refresh",
    "reset",
    "torch_compat",
]
