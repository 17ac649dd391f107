"""Gradients of compiled models beside TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek as ds
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from running import compare, random_array

MODELS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], str]] = {
    "dense": (lambda x: L.Dense(3)(L.Dense(8, activation="gelu")(x)), (6,), "float32"),
    "convolutions": (
        lambda x: L.Dense(3)(
            L.Flatten()(
                L.MaxPooling2D(2)(
                    L.BatchNormalization()(L.Conv2D(4, 3, padding="same", strides=2, activation="swish")(x))
                )
            )
        ),
        (12, 12, 3),
        "float32",
    ),
    "depthwise": (
        lambda x: L.GlobalAveragePooling2D()(
            L.DepthwiseConv2D(3, padding="same", activation="elu")(L.Conv2D(6, 1)(x))
        ),
        (8, 8, 3),
        "float32",
    ),
    "transposed convolution": (
        lambda x: L.Conv2DTranspose(3, 3, strides=2, padding="same")(
            L.AveragePooling2D(2, padding="same")(x)
        ),
        (6, 6, 2),
        "float32",
    ),
    "norms": (lambda x: L.RMSNormalization()(L.LayerNormalization()(L.Dense(8)(x))), (5, 6), "float32"),
    "attention": (
        lambda x: L.GlobalAveragePooling1D()(L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))),
        (5, 8),
        "float32",
    ),
    "embedding": (lambda x: L.Dense(3)(L.GlobalAveragePooling1D()(L.Embedding(5, 4)(x))), (7,), "int32"),
    "lstm": (lambda x: L.Dense(2)(L.LSTM(6)(x)), (5, 4), "float32"),
    "gru of twenty steps": (lambda x: L.GRU(4, return_sequences=True)(x), (20, 4), "float32"),
    "resize": (
        lambda x: L.UpSampling2D(2, interpolation="bilinear")(L.Conv2D(2, 3)(x)),
        (6, 6, 2),
        "float32",
    ),
}


def gradients_of(call: Callable[..., Any], model: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
        loss = tf.reduce_sum(y * tf.constant(random_array(y.shape, "float32", 9)))
    sources = [*model.trainable_variables, *([x] if x.dtype.is_floating else [])]
    return loss, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, sources)]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_with_tensorflow(name: str) -> None:
    make, shape, dtype = MODELS[name]
    inputs = keras.Input(shape, dtype=dtype)
    model = keras.Model(inputs, make(inputs))
    compiled = ds.compile(model, tune="off")
    for batch in (1, 4):
        x = tf.constant(random_array((batch, *shape), dtype, batch))
        want = gradients_of(lambda x: model(x, training=False), model, x)
        got = gradients_of(compiled, model, x)
        compare(got, want, f"{name}, batch {batch}", rtol=2e-5, together=True)


def test_training_through_a_compiled_model_in_a_tf_function() -> None:
    def training(call: Callable[[Any], Any], model: Any) -> list[float]:
        optimizer = keras.optimizers.SGD(0.05)

        @tf.function
        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((call(x) - y) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        x, y = random_array((8, 6), "float32", 0), random_array((8, 3), "float32", 1)
        return [float(step(tf.constant(x), tf.constant(y))) for _ in range(5)]

    losses = []
    for through_us in (True, False):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="tanh"), L.Dense(3)])
        losses.append(training(ds.compile(model) if through_us else model, model))
    compare(np.array(losses[0]), np.array(losses[1]), "losses", rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_stop_gradient_stops() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def f(x: Any) -> Any:
        return x * tf.stop_gradient(x) + tf.stop_gradient(tf.sin(x))

    x = tf.constant([1.0, 2.0, -3.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        got, want = ds.compile(f)(x), f(x)
    compare(tape.gradient(got, x), tape.gradient(want, x), "stopped")


def test_gradients_of_the_functions_own_are_refused_rather_than_wrong() -> None:
    @tf.custom_gradient
    def reversed_gradient(x: Any) -> Any:
        return tf.identity(x) * 1.0, lambda dy: -dy

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def f(x: Any) -> Any:
        return reversed_gradient(x) * 2.0

    compiled, x = ds.compile(f), tf.constant([1.0, 2.0])
    compare(compiled(x), f(x), "forward")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = compiled(x)
    with pytest.raises(ds.Error, match="custom_gradient"):
        tape.gradient(y, x)


def test_a_loop_without_known_length_has_no_gradient_and_says_so() -> None:
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, L.LSTM(4)(inputs))
    compiled, x = ds.compile(model), tf.constant(random_array((2, 5, 3), "float32", 0))
    with tf.GradientTape() as tape:
        y = compiled(x)
    with pytest.raises(ds.Error, match="while"):
        tape.gradient(y, model.trainable_variables)
