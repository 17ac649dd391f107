"""A translated function's executable, with the variables bound as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from deepseek import Context
from deepseek._core import Array
from deepseek.arrays import cast_to
from deepseek.compiler import compile_graph
from deepseek.tensorflow.translate import Translation


class Program:
    """Runs on arrays. Calls from several threads take turns inside Context."""

    def __init__(self, translation: Translation, names: Sequence[str], options: dict[str, Any]) -> None:
        """`names`: of the results, without those that are what variables hold afterwards."""
        graph = translation.graph
        for name, value in zip(names, translation.results, strict=True):
            graph.output(name, value)
        self.names = {variable: value.name for variable, value in translation.parameters.items()}
        self.updated = list(translation.updates)
        for variable, value in translation.updates.items():
            graph.output(f"update:{self.names[variable]}", value)
        self._arguments = [value.name for value in translation.arguments]
        samples = [self._sample(sample) for sample in options["samples"]]
        self.executable = compile_graph(graph, options | {"samples": samples}, stacklevel=7)
        self.context = Context(self.executable)
        positions = {name: i for i, name in enumerate(self.executable.inputs)}
        self._places = [(variable, positions[name], variable.source) for variable, name in self.names.items()]
        self._ports = [(positions[name], self.executable.inputs[name]) for name in self._arguments]
        self._states: list[Any] = [None] * len(self._places)  # an address, or a scalar itself
        self._version = 0

    def parameters(self) -> dict[str, Any]:
        """What the variables hold, by the names of their inputs."""
        return {name: variable.source.numpy() for variable, name in self.names.items()}

    def run(self, arguments: Sequence[Any]) -> list[Array]:
        """Arrays in the order of the function's inputs; results, then what `updated` hold afterwards."""
        self._take_variables()
        inputs: list[Any] = [None] * len(self.executable.inputs)
        for (place, port), value in zip(self._ports, arguments, strict=True):
            inputs[place] = cast_to(value, port.dtype, f'input "{port.name}"', port.source)
        return self.context.run(inputs)

    def _sample(self, sample: Any) -> dict[str, Any]:
        named = sample if isinstance(sample, Mapping) else dict(zip(self._arguments, sample, strict=True))
        return dict(named) | self.parameters()

    def _take_variables(self) -> None:
        """Binds what the variables hold.

        TensorFlow writes a variable in place only while nobody else holds its memory. What is bound is held,
        so a variable that changed has another address.
        """
        for i, (variable, place, source) in enumerate(self._places):
            held = tf.raw_ops.ReadVariableOp(resource=source.handle, dtype=source.dtype)._numpy()
            state = held.ctypes.data if variable.shape else held.item()  # NumPy copies a scalar
            if state != self._states[i]:
                array = cast_to(held, variable.dtype, variable.name)
                made = array if isinstance(array, Array) else Array.of(array, variable.dtype)
                self._version += 1
                self.context.set_parameter(place, made, self._version)
                self._states[i] = state
