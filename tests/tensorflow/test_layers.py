"""Every kind of Keras layer, compiled once and run with several batch sizes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from running import WHOLE, check_model

Shape = tuple[int | None, ...]
ROW, STEPS, OPEN_STEPS, IMAGE, VOLUME = (6,), (5, 6), (None, 6), (8, 8, 4), (6, 6, 6, 4)
CASES: dict[str, tuple[Callable[[], Any], Sequence[Shape], str]] = {}


def case(name: str, make: Callable[[], Any], *shapes: Shape, dtype: str = "float32") -> None:
    assert name not in CASES
    CASES[name] = (make, shapes, dtype)


def kinds(prefix: str, make: Callable[..., Any], variants: dict[str, dict[str, Any]], *shapes: Shape) -> None:
    for name, arguments in variants.items():
        case(f"{prefix} {name}".strip(), lambda arguments=arguments: make(**arguments), *shapes)


# Dense and convolutions.
case("Dense", lambda: L.Dense(5), ROW)
case("Dense of steps", lambda: L.Dense(5, use_bias=False, activation="relu"), STEPS)
case("EinsumDense", lambda: L.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d"), STEPS)
case("EinsumDense heads", lambda: L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)), OPEN_STEPS)
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "same strides": {"padding": "same", "strides": 2},
    "dilated": {"dilation_rate": 2, "padding": "same"},
}
kinds("Conv1D", lambda **k: L.Conv1D(4, 3, **k), CONVOLUTIONS, (9, 4))
kinds("Conv2D", lambda **k: L.Conv2D(4, 3, **k), CONVOLUTIONS | {"groups": {"groups": 2}}, IMAGE)
kinds("Conv3D", lambda **k: L.Conv3D(4, 3, **k), CONVOLUTIONS, (7, 6, 5, 4))
case("Conv1D causal", lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2), OPEN_STEPS)
case("Conv2D even kernel", lambda: L.Conv2D(4, (2, 4), padding="same", strides=(1, 3)), (7, 9, 3))
case("Conv2D open size", lambda: L.Conv2D(4, 3, padding="same"), (None, None, 3))
case("Conv2D open size strides", lambda: L.Conv2D(4, 3, padding="same", strides=2), (None, None, 3))
kinds(
    "DepthwiseConv1D", lambda **k: L.DepthwiseConv1D(3, **k), {"": {}, "x2": {"depth_multiplier": 2}}, (9, 4)
)
kinds(
    "DepthwiseConv2D",
    lambda **k: L.DepthwiseConv2D(3, **k),
    {
        "": {},
        "x2": {"depth_multiplier": 2, "padding": "same"},
        "strides": {"strides": 2},
        "dilated": {"dilation_rate": 2},
    },
    IMAGE,
)
case("SeparableConv1D", lambda: L.SeparableConv1D(5, 3), (9, 4))
case("SeparableConv2D", lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2), IMAGE)
TRANSPOSED: dict[str, dict[str, Any]] = {
    "": {},
    "strides": {"strides": 2},
    "same": {"strides": 2, "padding": "same"},
}
kinds("Conv1DTranspose", lambda **k: L.Conv1DTranspose(4, 3, **k), TRANSPOSED, (6, 4))
kinds("Conv2DTranspose", lambda **k: L.Conv2DTranspose(4, 3, **k), TRANSPOSED, (5, 6, 4))
kinds("Conv3DTranspose", lambda **k: L.Conv3DTranspose(4, 3, **k), TRANSPOSED, (4, 3, 5, 4))

# Poolings, padding, sizes.
for spatial, shape in ((1, (9, 4)), (2, (9, 8, 4)), (3, (6, 7, 6, 4))):
    for kind in ("Max", "Average"):
        pool = getattr(L, f"{kind}Pooling{spatial}D")
        kinds(
            f"{kind}Pooling{spatial}D",
            pool,
            {"": {"pool_size": 2}, "same": {"pool_size": 3, "strides": 2, "padding": "same"}},
            shape,
        )
        case(f"Global{kind}Pooling{spatial}D", getattr(L, f"Global{kind}Pooling{spatial}D"), shape)
        adaptive = getattr(L, f"Adaptive{kind}Pooling{spatial}D")
        case(f"Adaptive{kind}Pooling{spatial}D", lambda adaptive=adaptive: adaptive(3), shape)
    case(f"ZeroPadding{spatial}D", lambda spatial=spatial: getattr(L, f"ZeroPadding{spatial}D")(2), shape)
    case(f"Cropping{spatial}D", lambda spatial=spatial: getattr(L, f"Cropping{spatial}D")(1), shape)
    case(f"UpSampling{spatial}D", lambda spatial=spatial: getattr(L, f"UpSampling{spatial}D")(2), shape)
case("GlobalAveragePooling1D keepdims", lambda: L.GlobalAveragePooling1D(keepdims=True), OPEN_STEPS)
for how in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
    case(f"UpSampling2D {how}", lambda how=how: L.UpSampling2D(2, interpolation=how), (5, 4, 3))
    case(f"Resizing {how}", lambda how=how: L.Resizing(5, 7, interpolation=how), (8, 6, 3))
case("Resizing area", lambda: L.Resizing(5, 7, interpolation="area"), (8, 9, 3))
case("Resizing antialias", lambda: L.Resizing(5, 7, antialias=True), (9, 8, 3))
case("Resizing crop", lambda: L.Resizing(5, 7, crop_to_aspect_ratio=True), (8, 8, 3))
case("Resizing pad", lambda: L.Resizing(5, 7, pad_to_aspect_ratio=True), (8, 8, 3))
case("CenterCrop", lambda: L.CenterCrop(4, 5), (8, 9, 3))
case("CenterCrop of a small image", lambda: L.CenterCrop(6, 6), (4, 5, 3))

# Shapes.
case("Flatten", L.Flatten, IMAGE)
case("Reshape", lambda: L.Reshape((-1, 2)), IMAGE)
case("Permute", lambda: L.Permute((3, 1, 2)), IMAGE)
case("RepeatVector", lambda: L.RepeatVector(3), ROW)
case("Identity", L.Identity, ROW)
case("Masking", L.Masking, STEPS)
case("TimeDistributed", lambda: L.TimeDistributed(L.Dense(3)), STEPS)
case("TimeDistributed convolution", lambda: L.TimeDistributed(L.Conv2D(3, 3)), (4, 6, 6, 2))
case("Lambda", lambda: L.Lambda(lambda x: keras.ops.flip(x, 1)[:, 1:, None]), STEPS)

# Several inputs.
for merge in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate):
    case(merge.__name__, lambda merge=merge: Listed(merge()), ROW, ROW)
case("Concatenate axis 1", lambda: Listed(L.Concatenate(axis=1)), STEPS, (3, 6))
case("Dot", lambda: Listed(L.Dot(axes=2)), STEPS, (4, 6))
case("Dot normalized", lambda: Listed(L.Dot(axes=1, normalize=True)), ROW, ROW)

# Normalisations.
case("BatchNormalization", L.BatchNormalization, IMAGE)
case("BatchNormalization axis 1", lambda: L.BatchNormalization(axis=1, scale=False), STEPS)
case("LayerNormalization", L.LayerNormalization, STEPS)
case("LayerNormalization two axes", lambda: L.LayerNormalization(axis=(1, 2)), STEPS)
case("RMSNormalization", L.RMSNormalization, STEPS)
case("GroupNormalization", lambda: L.GroupNormalization(2), IMAGE)
case("UnitNormalization", L.UnitNormalization, ROW)
case("SpectralNormalization", lambda: L.SpectralNormalization(L.Dense(4)), ROW)
case("Normalization", lambda: L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]), IMAGE)
case("Rescaling", lambda: L.Rescaling(0.5, offset=-1), IMAGE)

# Activations.
ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear "
    "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign "
    "sparse_plus sparse_sigmoid sparsemax squareplus tanh tanh_shrink"
)
for name in ACTIVATIONS.split():
    case(f"activation {name}", lambda name=name: L.Activation(name), (5, 6))
case(
    "activation gelu of tanh",
    lambda: L.Activation(lambda x: keras.activations.gelu(x, approximate=True)),
    ROW,
)
case("ReLU", lambda: L.ReLU(max_value=2, negative_slope=0.1, threshold=0.5), ROW)
case("LeakyReLU", L.LeakyReLU, ROW)
case("ELU", lambda: L.ELU(0.7), ROW)
case("PReLU", lambda: L.PReLU(alpha_initializer="uniform", shared_axes=[1]), STEPS)
case("Softmax axis 1", lambda: L.Softmax(axis=1), STEPS)

# Attention, embeddings, recurrence.
case("MultiHeadAttention", lambda: L.MultiHeadAttention(2, 4), STEPS, STEPS)
case("MultiHeadAttention open", lambda: L.MultiHeadAttention(2, 4, value_dim=3), OPEN_STEPS, OPEN_STEPS)
case("MultiHeadAttention causal", lambda: Causal(L.MultiHeadAttention(2, 4)), STEPS)
case("GroupQueryAttention", lambda: L.GroupQueryAttention(4, 4, 2), STEPS, STEPS)
case("Attention", lambda: Listed(L.Attention(use_scale=True)), STEPS, (4, 6))
case("AdditiveAttention", lambda: Listed(L.AdditiveAttention()), STEPS, (4, 6))
case("Embedding", lambda: L.Embedding(5, 4), (7,), dtype="int32")
case("ReversibleEmbedding", lambda: L.ReversibleEmbedding(5, 4), (7,), dtype="int32")
for cell in (L.SimpleRNN, L.LSTM, L.GRU):
    kinds(
        cell.__name__,
        cell,
        {
            "": {"units": 4},
            "sequences": {"units": 4, "return_sequences": True},
            "unrolled": {"units": 4, "unroll": True},
            "backwards": {"units": 4, "go_backwards": True, "return_sequences": True},
            "states": {"units": 4, "return_state": True},
        },
        STEPS,
    )
    case(f"{cell.__name__} open", lambda cell=cell: cell(4, return_sequences=True), OPEN_STEPS)
    case(f"{cell.__name__} many steps", lambda cell=cell: cell(4), (40, 3))
    case(
        f"{cell.__name__} masked",
        lambda cell=cell: keras.Sequential(
            [L.Embedding(5, 4, mask_zero=True), cell(4, return_sequences=True)]
        ),
        (7,),
        dtype="int32",
    )
case("GRU reset before", lambda: L.GRU(4, reset_after=False), STEPS)
case("RNN of stacked cells", lambda: L.RNN(L.StackedRNNCells([L.LSTMCell(4), L.GRUCell(5)])), STEPS)
case("Bidirectional LSTM", lambda: L.Bidirectional(L.LSTM(4)), STEPS)
case("Bidirectional GRU open", lambda: L.Bidirectional(L.GRU(4, return_sequences=True)), OPEN_STEPS)
case("ConvLSTM1D", lambda: L.ConvLSTM1D(3, 3), (4, 6, 2))
case("ConvLSTM2D", lambda: L.ConvLSTM2D(3, 3, return_sequences=True), (4, 6, 5, 2))
case("ConvLSTM3D", lambda: L.ConvLSTM3D(2, 2), (3, 4, 4, 3, 2))
case(
    "pooled masked steps",
    lambda: keras.Sequential([L.Embedding(5, 4, mask_zero=True), L.GlobalAveragePooling1D()]),
    (7,),
    dtype="int32",
)

# What trains alone is the identity here; what prepares data.
for name, make in {
    "Dropout": lambda: L.Dropout(0.5),
    "SpatialDropout1D": lambda: L.SpatialDropout1D(0.5),
    "GaussianNoise": lambda: L.GaussianNoise(0.5),
    "GaussianDropout": lambda: L.GaussianDropout(0.5),
    "AlphaDropout": lambda: L.AlphaDropout(0.5),
    "ActivityRegularization": lambda: L.ActivityRegularization(0.1),
}.items():
    case(name, make, STEPS)
for name in ("Flip", "Contrast", "Brightness"):
    case(
        f"Random{name}",
        lambda name=name: getattr(L, f"Random{name}")(**({} if name == "Flip" else {"factor": 0.2})),
        (8, 8, 3),
    )
case("CategoryEncoding", lambda: L.CategoryEncoding(5), (3,), dtype="int32")
case("CategoryEncoding one hot", lambda: L.CategoryEncoding(5, output_mode="one_hot"), (1,), dtype="int32")
case("CategoryEncoding count", lambda: L.CategoryEncoding(5, output_mode="count"), (3,), dtype="int32")
case("Discretization", lambda: L.Discretization(bin_boundaries=[0.0, 0.5, 1.0]), ROW)
case("STFTSpectrogram", lambda: L.STFTSpectrogram(frame_length=64, frame_step=32, fft_length=64), (400, 1))


class Listed(keras.Layer):  # type: ignore[misc]
    """A layer that takes its inputs as a list."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, *inputs: Any) -> Any:
        return self.inner(list(inputs))


class Causal(keras.Layer):  # type: ignore[misc]
    """Attention of steps to those before."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x, x, use_causal_mask=True)


# The fixed part is a third of them; DEEPSEEK_WHOLE_SUITES=1 takes all.
@pytest.mark.parametrize("name", [name for name in CASES if WHOLE or zlib.crc32(name.encode()) % 3 == 0])
def test_layer_agrees_with_keras(name: str) -> None:
    make, shapes, dtype = CASES[name]
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], make()(*inputs))
    rng = np.random.default_rng(3)
    for variable in model.variables:  # zeros and ones hide mistakes
        if "float" in variable.dtype and "variance" not in variable.path:
            variable.assign(variable + rng.uniform(0, 0.3, variable.shape))
    check_model(model, shapes, dtype, name)
