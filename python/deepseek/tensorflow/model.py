"""A compiled function of TensorFlow, called with tensors or arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

from deepseek import Executable
from deepseek._core import Array
from deepseek.arrays import to_numpy
from deepseek.errors import invalid
from deepseek.tensorflow.functions import Function, function_of
from deepseek.tensorflow.program import Program
from deepseek.tensorflow.translate import Translation, translate

UNROLLED_FOR_GRADIENTS = 1024


def compile_model(model: Any, example_inputs: Sequence[Any] | None, options: dict[str, Any]) -> Model:
    """`model`: a Keras model, a tf.function, a concrete function or a SavedModel's folder."""
    return Model(function_of(model, example_inputs), options)


class Model:
    """A compiled function. Dims that the function leaves open are symbols; any size runs.

    The function's variables are parameters: what derives from them (folded, packed weights) is kept until
    one changes, which each call finds out. Those that the function assigns are assigned after the run.
    """

    def __init__(self, function: Function, options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        self._forward = Program(translate(function), function.outputs, options)
        self._backward: tuple[Program, list[int]] | None = None
        self.executable = self._forward.executable
        ports = self.executable.inputs
        self.inputs = {name: port for name, port in ports.items() if port.role == "argument"}
        self.outputs = {name: self.executable.outputs[name] for name in function.outputs}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes what the function takes, in order or by name; gives results in the function's structure.

        Tensors in, tensors out, with a gradient for a tf.GradientTape; NumPy's arrays otherwise.
        """
        given = self._arguments(args, kwargs)
        recorded = record.could_possibly_record() or not tf.executing_eagerly()
        if recorded:
            results = self._recorded(given)
        else:
            convert = _to_tensor if any(tf.is_tensor(value) for value in given) else to_numpy
            results = [convert(array) for array in self._run(given)]
        return tf.nest.pack_sequence_as(self._function.structure, results, expand_composites=True)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Takes arrays by input name, gives arrays by output name."""
        arrays = self._run(self._arguments((), dict(inputs)))
        return {name: to_numpy(array) for name, array in zip(self.outputs, arrays, strict=True)}

    def bound(self, inputs: Mapping[str, Any]) -> tuple[Executable, dict[str, Any]]:
        """The Executable, and all that it takes for these inputs."""
        given = zip(self.inputs, self._arguments((), dict(inputs)), strict=True)
        return self.executable, dict(given) | self._forward.parameters()

    def explain(self) -> str:
        """What was compiled and why: a line per step with its source, and the compiler's notes."""
        return self.executable.explain()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an executable for `deepseek.load`, with what the variables hold now as constants."""
        translation = translate(self._function, baked=True)
        if translation.updates:
            assigned = ", ".join(variable.name for variable in translation.updates)
            raise invalid("save", "a function that assigns no variables", assigned)
        Program(translation, self._function.outputs, self._options).executable.save(path)

    def _arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        flat = _flat(args)
        if len(flat) == 1 and isinstance(flat[0], Mapping):
            flat, kwargs = [], {**flat[0], **kwargs}
        if len(flat) > len(self.inputs):
            raise invalid("run", f"at most {len(self.inputs)} inputs", str(len(flat)))
        named = dict(zip(self.inputs, flat, strict=False))
        for name, value in kwargs.items():
            if name not in self.inputs or name in named:
                inputs = ", ".join(self.inputs) or "no inputs"
                raise invalid("run", f"one array for each of {inputs}", f'"{name}"')
            named[name] = value
        for name in self.inputs:
            if named.get(name) is None:
                raise invalid("run", f'an array for input "{name}"', "none")
        return [named[name] for name in self.inputs]

    def _run(self, given: Sequence[Any]) -> list[Array]:
        arrays = self._forward.run([_to_array(value) for value in given])
        count = len(self.outputs)
        for variable, array in zip(self._forward.updated, arrays[count:], strict=True):
            variable.source.assign(_to_tensor(array))
        return arrays[:count]

    # Gradients.
    def _recorded(self, given: Sequence[Any]) -> list[Any]:
        """A run that a tape may differentiate: by the inputs and by the variables that are trained."""
        inputs = [
            tf.convert_to_tensor(value, None if hasattr(value, "dtype") else port.dtype)
            for value, port in zip(given, self.inputs.values(), strict=True)
        ]
        trained = [variable.source.read_value() for variable in self._trained(self._forward.names)]

        def run(*tensors: Any) -> list[Any]:
            return [_to_tensor(array) for array in self._run(tensors)]

        def call(*tensors: Any) -> tuple[list[Any], Callable[..., list[Any]]]:
            results = _anywhere(run, tensors[: len(inputs)], list(self.outputs.values()))
            return results, lambda *dys: self._gradients(tensors, dys)

        results = tf.custom_gradient(call)(*inputs, *trained)
        return list(results) if isinstance(results, (list, tuple)) else [results]

    def _gradients(self, tensors: Sequence[Any], dys: Sequence[Any]) -> list[Any]:
        if self._backward is None:
            self._backward = self._compiled_gradients()
        program, positions = self._backward
        floats = [dy for dy, port in zip(dys, self.outputs.values(), strict=True) if "float" in port.dtype]

        def run(*given: Any) -> list[Any]:
            return [_to_tensor(array) for array in program.run([_to_array(value) for value in given])]

        given = [*tensors[: len(self.inputs)], *floats]
        found = _anywhere(run, given, list(program.executable.outputs.values()))
        results: list[Any] = [None] * len(tensors)
        for position, value in zip(positions, found, strict=True):
            results[position] = value
        return results

    def _compiled_gradients(self) -> tuple[Program, list[int]]:
        """With the position, among inputs and trained variables, of what each result is the gradient of."""
        t = translate(self._function, unrolled=UNROLLED_FOR_GRADIENTS, differentiable=True)
        ys = {name: y for name, y in zip(self.outputs, t.results, strict=True) if "float" in y.dtype}
        dys = [t.graph.placeholder(f"gradient_of_{name}", list(y.shape), y.dtype) for name, y in ys.items()]
        xs = [*t.arguments, *(t.parameters[variable] for variable in self._trained(t.parameters))]
        found = t.graph.gradients(list(ys.values()), dys, xs)
        results = [value for value in found if value is not None]
        gradients = Translation(t.graph, [*t.arguments, *dys], t.parameters, results, {})
        names = [f"gradient_{i}" for i in range(len(results))]
        positions = [i for i, value in enumerate(found) if value is not None]
        return Program(gradients, names, self._options | {"samples": []}), positions

    @staticmethod
    def _trained(variables: Mapping[Any, Any]) -> list[Any]:
        return [variable for variable in variables if getattr(variable.source, "trainable", False)]


def _anywhere(function: Callable[..., list[Any]], tensors: Sequence[Any], ports: Sequence[Any]) -> list[Any]:
    """The function called now or, in a graph under construction, when that runs."""
    if tf.executing_eagerly():
        return function(*tensors)
    results: list[Any] = list(tf.py_function(function, list(tensors), [port.dtype for port in ports]))
    for result, port in zip(results, ports, strict=True):
        result.set_shape([size if isinstance(size, int) else None for size in port.shape])
    return results


def _flat(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [leaf for value in values for leaf in _flat(value)]
    return [values]


def _to_array(value: Any) -> Any:
    """A tensor's memory as NumPy's array; anything else as it is."""
    if hasattr(value, "_numpy"):
        return value._numpy()
    return np.asarray(value) if tf.is_tensor(value) else value


def _to_tensor(array: Array) -> Any:
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
