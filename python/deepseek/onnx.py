"""ONNX models, in and out."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepseek import _core
from deepseek._core import Array, OnnxProgram
from deepseek.arrays import cast_to
from deepseek.compiler import compile_graph
from deepseek.errors import invalid
from deepseek.executable import Executable

if TYPE_CHECKING:
    import numpy.typing as npt

_KEPT = 32  # executables that one model remembers


def compile_onnx(
    model: bytes | bytearray | memoryview | str | os.PathLike[str], options: dict[str, Any]
) -> Executable | OnnxModel:
    """An Executable; an OnnxModel when values of some inputs decide the shapes of others."""
    if isinstance(model, (str, os.PathLike)):
        program = OnnxProgram.read(os.fspath(model))
    else:
        program = OnnxProgram.parse(bytes(model))
    if program.shape_inputs or any(kind != "tensor" for kind in program.outputs.values()):
        if options["samples"]:
            raise invalid("compile", "no samples for a model whose inputs decide shapes", "some")
        return OnnxModel(program, options)
    return compile_graph(program.graph_for({}).graph(), options, stacklevel=4)


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    example_inputs: Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
) -> None:
    """Writes a ds.Graph or a torch.nn.Module (with example inputs) as an ONNX model of opset 21.

    Placeholders become inputs, constants initializers, symbolic dims names of dims; `example_inputs` and
    `dynamic_shapes` as in ds.compile. ONNX Runtime gives the same results up to rounding; where ONNX has
    nothing of an op's meaning there is one Error that names the op and its source.
    """
    graph = model
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from deepseek.torch.export import graph_of

        if example_inputs is None:
            raise invalid("export_onnx", "example_inputs for a torch.nn.Module", "none")
        graph = graph_of(model, example_inputs, dynamic_shapes)
    if not isinstance(graph, _core.Graph):
        raise invalid("export_onnx", "a Graph or a torch.nn.Module", type(model).__name__)
    _core.export_onnx(graph, os.fspath(path))


class OnnxModel:
    """A model with inputs whose values decide shapes: an Executable per tuple of their values."""

    def __init__(self, program: OnnxProgram, options: dict[str, Any]) -> None:
        self._program = program
        self._options = options
        self._executables: OrderedDict[int, tuple[Any, Executable]] = OrderedDict()
        self.inputs = {port.name: port for port in program.inputs}
        self._kinds = program.kinds

    def executable_for(self, inputs: Mapping[str, Any]) -> Executable:
        """The Executable for these inputs."""
        return self._executable_for(self._arrays(inputs))

    def bound(self, inputs: Mapping[str, Any]) -> tuple[Executable, dict[str, Array]]:
        """The Executable for these inputs, and those of them that it takes."""
        arrays = self._arrays(inputs)
        executable = self._executable_for(arrays)
        return executable, {name: value for name, value in arrays.items() if name in executable.inputs}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Takes arrays by input name, casts them to the inputs' dtypes, gives arrays by output name.

        A sequence is a list of arrays, an optional that is absent None, on both sides.
        """
        executable, arrays = self.bound(inputs)
        results = executable.run(arrays)
        return {name: self._joined(name, kind, results) for name, kind in self._program.outputs.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes the inputs in order or by name; gives one result, or a tuple of several."""
        named = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        results = tuple(self.run(named).values())
        return results[0] if len(results) == 1 else results

    def _arrays(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The graph's inputs by name: the elements of a sequence "x" are "x[0]", "x[1]" and so on."""
        for name in inputs:
            if name not in self.inputs:
                raise invalid("run", f"inputs named {', '.join(self.inputs) or 'nothing'}", f'"{name}"')
        arrays = {}
        for name, port in self.inputs.items():
            kind, value = self._kinds[name], inputs.get(name)
            if value is None and kind == "tensor":
                raise invalid("run", f'an array for input "{name}"', "none")
            if value is None:
                continue
            if kind in ("tensor", "optional"):
                given = {name: value}
            elif isinstance(value, (list, tuple)):
                given = {f"{name}[{i}]": element for i, element in enumerate(value)}
            else:
                raise invalid("run", f'a list of arrays for input "{name}"', type(value).__name__)
            for element, one in given.items():
                array = cast_to(one, port.dtype, f'input "{element}"')
                arrays[element] = array if isinstance(array, Array) else Array.of(array, port.dtype)
        return arrays

    def _executable_for(self, arrays: dict[str, Array]) -> Executable:
        made = self._program.graph_for(arrays)
        found = self._executables.get(made.key)
        if found is None:
            # The graph is kept with it, so that its key stays its own.
            found = (made, compile_graph(made.graph(), self._options, stacklevel=6))
            self._executables[made.key] = found
            if len(self._executables) > _KEPT:
                self._executables.popitem(last=False)
        return found[1]

    @staticmethod
    def _joined(name: str, kind: str, results: Mapping[str, npt.NDArray[Any]]) -> Any:
        if kind in ("tensor", "optional") and (name in results or kind == "optional"):
            return results.get(name)
        elements: list[Any] = []
        while f"{name}[{len(elements)}]" in results:
            elements.append(results[f"{name}[{len(elements)}]"])
        return elements

    def explain(self) -> str:
        """What was compiled so far."""
        return "\n".join(executable.explain() for _, executable in self._executables.values())
