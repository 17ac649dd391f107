"""Keras's applications with random weights: one compilation, two batch sizes; for some the gradients too.

The fixed part takes a few small ones; DEEPSEEK_WHOLE_SUITES=1 takes all.
"""

from __future__ import annotations

from typing import Any

import deepseek as ds
import keras
import pytest
import tensorflow as tf
from running import WHOLE, compare, random_array

FIXED = ["MobileNetV2", "ConvNeXtTiny"]
WHOLE_LIST = (
    "ConvNeXtTiny ConvNeXtSmall DenseNet121 DenseNet169 EfficientNetB0 EfficientNetB1 EfficientNetV2B0 "
    "EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small "
    "NASNetMobile ResNet50 ResNet50V2 ResNet101 VGG16 VGG19 Xception"
)
LARGEST = {"InceptionResNetV2": 96, "InceptionV3": 96, "Xception": 96, "NASNetMobile": 64}


def application(name: str) -> tuple[Any, int]:
    size = LARGEST.get(name, 64)
    make = getattr(keras.applications, name)
    if name == "NASNetMobile":
        return make(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"), size
    return make(weights=None, classes=10, input_shape=(size, size, 3)), size


@pytest.mark.parametrize("name", WHOLE_LIST.split() if WHOLE else FIXED)
def test_application_agrees_with_keras(name: str) -> None:
    model, size = application(name)
    compiled = ds.compile(model, tune="off")
    for batch in (1, 3):
        x = random_array((batch, size, size, 3), "float32", batch)
        compare(compiled(x), model(x, training=False), f"{name}, batch {batch}")


@pytest.mark.parametrize(
    "name", ["MobileNetV2", "ResNet50", "ConvNeXtTiny", "EfficientNetB0"] if WHOLE else ["MobileNet"]
)
def test_gradients_of_an_application_agree_with_tensorflow(name: str) -> None:
    """In float64: its own in float32 are off by more than 1e-4 for a ResNet-50 of random weights."""
    model, size = application(name)
    compiled = ds.compile(model, tune="off")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        exact, _ = application(name)
    finally:
        keras.config.set_dtype_policy(policy)
    exact.set_weights(model.get_weights())
    found = []
    for call, variables, dtype in (
        (compiled, model.trainable_variables, "float32"),
        (lambda x: exact(x, training=False), exact.trainable_variables, "float64"),
    ):
        x = tf.constant(random_array((2, size, size, 3), "float32", 0).astype(dtype))
        weights = tf.constant(random_array((2, 10), "float32", 1).astype(dtype))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(x) * weights)
        found.append([tf.cast(g, "float32").numpy() for g in tape.gradient(loss, variables)])
    compare(*found, f"gradients of {name}", together=True)


def text_model() -> Any:
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(100, 16, mask_zero=True)(tokens)
    x = keras.layers.Bidirectional(keras.layers.LSTM(12, return_sequences=True))(x)
    x = keras.layers.LSTM(8)(x)
    return keras.Model(tokens, keras.layers.Dense(3, activation="softmax")(x))


def transformer() -> Any:
    layers = keras.layers
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(100, 32)(tokens)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 8)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(32)(layers.Dropout(0.1)(layers.Dense(64, activation="gelu")(y)))
    return keras.Model(tokens, layers.Dense(100)(layers.LayerNormalization()(x)))


@pytest.mark.parametrize("make", [text_model, transformer])
def test_text_model_agrees_with_keras(make: Any) -> None:
    model = make()
    compiled = ds.compile(model, tune="off")
    for batch, length in ((1, 12), (5, 12), *(((2, 7), (3, 33)) if make is transformer else ())):
        x = random_array((batch, length), "int32", batch, most=100)
        compare(compiled(x), model(x, training=False), f"batch {batch}, length {length}")


def test_no_layout_is_changed_between_convolutions() -> None:
    """TensorFlow's channels stand last, as our convolutions have them: nothing is transposed in memory."""
    model, _ = application("MobileNetV2")
    steps = ds.compile(model, tune="off").explain().split("steps:")[1]
    assert "transpose" not in steps
    assert "copy" not in steps
