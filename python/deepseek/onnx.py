"""ONNX models."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deepseek._core import Array, OnnxProgram
from deepseek.arrays import cast_to
from deepseek.compiler import compile_graph
from deepseek.errors import invalid
from deepseek.executable import Executable, Results

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
    if program.shape_inputs:
        return OnnxModel(program, options)
    return compile_graph(program.graph_for({}).graph(), options, stacklevel=4)


class OnnxModel:
    """A model with inputs whose values decide shapes: an Executable per tuple of their values."""

    def __init__(self, program: OnnxProgram, options: dict[str, Any]) -> None:
        self._program = program
        self._options = options
        self._executables: OrderedDict[int, tuple[Any, Executable]] = OrderedDict()
        self.inputs = {port.name: port for port in program.inputs}

    def executable_for(self, inputs: Mapping[str, Any]) -> Executable:
        """The Executable for these inputs."""
        known = {}
        for port in self.inputs.values():
            value = inputs.get(port.name)
            if value is None:
                raise invalid("run", f'an array for input "{port.name}"', "none")
            array = cast_to(value, port.dtype, f'input "{port.name}"')
            known[port.name] = array if isinstance(array, Array) else Array.of(array, port.dtype)
        made = self._program.graph_for(known)
        found = self._executables.get(made.key)
        if found is None:
            # The graph is kept with it, so that its key stays its own.
            found = (made, compile_graph(made.graph(), self._options, stacklevel=5))
            self._executables[made.key] = found
            if len(self._executables) > _KEPT:
                self._executables.popitem(last=False)
        return found[1]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Takes arrays by input name, casts them to the inputs' dtypes, gives arrays by output name."""
        executable = self.executable_for(inputs)
        names = executable.inputs
        for name in inputs:
            if name not in names and name not in self.inputs:
                raise invalid("run", f"inputs named {', '.join(sorted(names))}", f'"{name}"')
        return executable.run({name: value for name, value in inputs.items() if name in names})

    def __call__(self, *args: Any, **kwargs: Any) -> Results:
        """Takes the inputs in order or by name; gives one array, or a tuple of several."""
        named = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        executable = self.executable_for(named)
        return executable(**{name: named[name] for name in executable.inputs})

    def explain(self) -> str:
        """What was compiled so far."""
        return "\n".join(executable.explain() for _, executable in self._executables.values())
