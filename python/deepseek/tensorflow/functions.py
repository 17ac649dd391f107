"""What users hand over, as one concrete function of TensorFlow with names for its inputs and results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepseek.errors import invalid
from deepseek.tensorflow.builder import Variable
from deepseek.tensorflow.shapes import Known, dtype_name


@dataclass
class Function:
    """A concrete function: its graph, what its inputs stand for, and its results."""

    concrete: Any
    inputs: dict[str, Any]  # the graph's placeholders by name
    outputs: list[str]
    results: list[Any]  # their tensors: TensorFlow adds to the graph's own list when it takes gradients
    structure: Any  # of the results
    captures: dict[str, Variable | Known]  # by the name of the placeholder's tensor
    keep: Any  # what must live as long as this
    one_batch: bool = False  # whether every input's open first dim is the same


def is_model(model: Any) -> bool:
    """Whether compile_model takes it."""
    return isinstance(model, (keras.Model, tf.types.experimental.PolymorphicFunction)) or _is_concrete(model)


def _is_concrete(model: Any) -> bool:
    return hasattr(model, "captured_inputs") and hasattr(model, "structured_outputs")


def function_of(model: Any, example_inputs: Sequence[Any] | None) -> Function:
    """`example_inputs`: arrays, tensors or TensorSpecs, where the model does not say what it takes."""
    if isinstance(model, (str, os.PathLike)):
        loaded = tf.saved_model.load(os.fspath(model))
        signatures = loaded.signatures
        if "serving_default" not in signatures:
            raise invalid(
                "compile", "a SavedModel with a signature named serving_default", ", ".join(signatures)
            )
        return _described(signatures["serving_default"], loaded)
    if isinstance(model, keras.Model):
        return _keras_function(model, example_inputs)
    if _is_concrete(model):
        return _described(model, model)
    if example_inputs is None and getattr(model, "input_signature", None) is None:
        raise invalid("compile", "example_inputs for a tf.function without input_signature", "none")
    return _described(model.get_concrete_function(*map(_spec, example_inputs or ())), model)


def _spec(example: Any) -> Any:
    if isinstance(example, tf.TypeSpec):
        return example
    values = example if tf.is_tensor(example) else np.asarray(example)
    return tf.TensorSpec(values.shape, values.dtype)


def _keras_function(model: Any, example_inputs: Sequence[Any] | None) -> Function:
    """The model for inference. Functional models say what they take; others are traced with the examples."""
    inputs = getattr(model, "inputs", None)
    if example_inputs is not None or not inputs:
        if example_inputs is None:
            raise invalid("compile", "example_inputs for a Keras model without inputs of its own", "none")
        traced = tf.function(lambda *xs: model(*xs, training=False), autograph=False)
        return _described(traced.get_concrete_function(*map(_spec, example_inputs)), model)
    structure = getattr(model, "_inputs_struct", inputs[0])  # a Sequential model has one input
    specs = [
        tf.TensorSpec(x.shape, x.dtype, name=name)
        for x, name in zip(inputs, _input_names(inputs), strict=True)
    ]

    def call(*xs: Any) -> Any:
        return model(tf.nest.pack_sequence_as(structure, xs), training=False)

    traced = tf.function(call, input_signature=specs, autograph=False)
    names = getattr(model, "output_names", None)
    function = _described(traced.get_concrete_function(), model, names)
    function.one_batch = True
    return function


def _input_names(inputs: Sequence[Any]) -> list[str]:
    return [x.name.split(":")[0].replace("/", "_") for x in inputs]


def _described(concrete: Any, keep: Any, names: Sequence[str] | None = None) -> Function:
    variables = {
        id(variable.handle): variable for variable in (*concrete.graph.variables, *concrete.variables)
    }
    captures: dict[str, Variable | Known] = {}
    known: dict[int, Variable] = {}
    for outside, inside in concrete.graph.captures:
        if id(outside) in variables:
            captures[inside.name] = _variable(variables[id(outside)], known)
        elif outside.dtype == tf.resource:
            raise invalid("compile", "variables as the only state of a function", f"{outside!r}")
        else:
            captures[inside.name] = Known(outside.numpy(), dtype_name(outside.dtype))
    inputs = {}
    for tensor in concrete.inputs:
        if tensor.name not in captures:
            inputs[tensor.op.name] = tensor
    outputs, structure = _output_names(concrete, names), concrete.structured_outputs
    return Function(concrete, inputs, outputs, list(concrete.graph.outputs), structure, captures, keep)


def _variable(source: Any, known: dict[int, Variable]) -> Variable:
    if id(source) not in known:
        if not source.shape.is_fully_defined():
            raise invalid("compile", "variables of static shape", f"{source.name} {source.shape}")
        shape = source.shape.as_list()
        name = getattr(source, "path", None) or source.name.split(":")[0]
        known[id(source)] = Variable(name, tuple(shape), dtype_name(source.dtype), source)
    return known[id(source)]


def _output_names(concrete: Any, names: Sequence[str] | None) -> list[str]:
    structured, count = concrete.structured_outputs, len(concrete.graph.outputs)
    if isinstance(structured, dict) and len(structured) == count:
        return [str(key) for key in sorted(structured)]
    if names is not None and len(names) == count and len(set(names)) == count:
        return list(names)
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
