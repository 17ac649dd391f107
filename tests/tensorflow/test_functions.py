"""tf.functions, SavedModels, variables, control flow, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import deepseek as ds
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from running import compare, random_array

F32 = tf.float32


def spec(*shape: int | None, dtype: Any = F32, name: str | None = None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name)


def test_a_function_with_named_inputs_and_a_structure_of_results() -> None:
    @tf.function(input_signature=[spec(None, 4, name="x"), spec(4, name="scale")])
    def f(x: Any, scale: Any) -> Any:
        return {"sum": tf.reduce_sum(x * scale, axis=1), "parts": (x + 1.0, [tf.shape(x)])}

    compiled = ds.compile(f)
    x, scale = random_array((3, 4), "float32", 0), random_array((4,), "float32", 1)
    want = f(tf.constant(x), tf.constant(scale))
    got = compiled(x, scale=scale)
    assert sorted(got) == ["parts", "sum"]
    compare(got, tf.nest.map_structure(lambda t: t.numpy(), want), "structure")
    assert list(compiled.inputs) == ["x", "scale"]
    assert compiled.inputs["x"].shape == ("x_0", 4)


def test_a_function_without_signature_takes_examples() -> None:
    @tf.function
    def f(x: Any, y: Any) -> Any:
        return x @ y

    with pytest.raises(ds.Error, match="example_inputs"):
        ds.compile(f)
    compiled = ds.compile(f, example_inputs=[spec(None, 4), np.zeros((4, 2), "float32")])
    for rows in (1, 5):
        x, y = random_array((rows, 4), "float32", 0), random_array((4, 2), "float32", 1)
        compare(compiled(x, y), x @ y, "product")
    concrete = f.get_concrete_function(spec(None, 4), spec(4, 2))
    compare(ds.compile(concrete)(x, y), x @ y, "concrete function")


def test_a_branch_that_the_run_decides() -> None:
    weight = tf.Variable(random_array((4, 4), "float32", 3))

    @tf.function(input_signature=[spec(None, 4)])
    def f(x: Any) -> Any:
        def otherwise() -> Any:
            return tf.zeros([tf.shape(x)[0], 4]) - 2.0 * x

        return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ weight, otherwise), tf.shape(x)

    compiled = ds.compile(f)
    for sign in (1, -1):
        x = sign * np.abs(random_array((3, 4), "float32", 0))
        compare(compiled(x), f(tf.constant(x)), f"sign {sign}")
    assert "if" in compiled.explain()


def test_loops_that_the_run_decides() -> None:
    weight = tf.Variable(0.1 * random_array((4, 4), "float32", 3))

    @tf.function(input_signature=[spec(None, 4), spec(dtype=tf.int32)])
    def f(x: Any, count: Any) -> Any:
        steps = 0
        while tf.reduce_sum(tf.abs(x)) > 0.5 and steps < count:
            x = tf.tanh(x @ weight) + 0.01 * tf.cast(tf.shape(x)[0], F32)
            steps += 1
        return x, steps

    compiled = ds.compile(f)
    for count in (0, 1, 7):
        x = random_array((3, 4), "float32", 0)
        compare(compiled(x, np.int32(count)), f(tf.constant(x), tf.constant(count)), f"count {count}")


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_lists_in_loops_over_open_dims(rows: int) -> None:
    @tf.function(input_signature=[spec(None, None, 4)])
    def f(x: Any) -> Any:
        found = tf.TensorArray(F32, size=tf.shape(x)[0])
        total = tf.zeros([tf.shape(x)[1], 4])
        for i in tf.range(tf.shape(x)[0]):
            total += x[i]
            found = found.write(i, total * 2.0)
        return found.stack()

    x = random_array((rows, 2, 4), "float32", 0)
    compare(ds.compile(f, target="interpreter")(x), f(tf.constant(x)), "running sum")


def test_a_loop_of_known_length_comes_unrolled_up_to_a_limit() -> None:
    def f(count: int) -> Any:
        @tf.function(input_signature=[spec(None, 4)])
        def loop(x: Any) -> Any:
            for _ in tf.range(count):
                x = tf.sin(x) + 1.0
            return x

        return loop

    x = random_array((2, 4), "float32", 0)
    for count, unrolled in ((3, True), (40, False)):
        compiled = ds.compile(f(count))
        compare(compiled(x), f(count)(tf.constant(x)), f"{count} steps")
        assert (" loop" not in compiled.explain()) == unrolled


def test_calls_of_functions_are_taken_in() -> None:
    @tf.function
    def inner(x: Any) -> Any:
        return tf.nn.relu(x) - 1.0

    @tf.function(input_signature=[spec(None, 4)])
    def outer(x: Any) -> Any:
        return inner(inner(x) * 3.0)

    x = random_array((2, 4), "float32", 0)
    compare(ds.compile(outer)(x), outer(tf.constant(x)), "calls")


def test_variables_are_parameters_that_are_followed() -> None:
    model = keras.Sequential([keras.Input((6,)), L.Dense(5), L.Dense(3)])
    compiled = ds.compile(model)
    x = random_array((2, 6), "float32", 0)
    compare(compiled(x), model(x), "before")
    optimizer = keras.optimizers.Adam(0.1)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        compare(compiled(x), model(x), "after a step")
    model.layers[0].kernel.assign(tf.zeros_like(model.layers[0].kernel))
    compare(compiled(x), model(x), "after an assignment")
    tensors = compiled(tf.constant(x))
    assert tf.is_tensor(tensors)


def test_variables_that_the_function_assigns() -> None:
    count, total = tf.Variable(0), tf.Variable(tf.zeros([3]))

    @tf.function(input_signature=[spec(3)])
    def f(x: Any) -> Any:
        count.assign_add(1)
        total.assign(total * 0.5 + x)
        return total + tf.cast(count, F32)

    compiled = ds.compile(f)
    x = random_array((3,), "float32", 0)
    got = [compiled(x) for _ in range(3)]
    held = total.numpy()
    assert count.numpy() == 3
    count.assign(0)
    total.assign(tf.zeros([3]))
    compare(got, [f(tf.constant(x)).numpy() for _ in range(3)], "results")
    compare(held, total.numpy(), "state")


def test_a_scalar_variable_is_followed() -> None:
    factor = tf.Variable(1.0)
    compiled = ds.compile(tf.function(lambda x: x * factor, input_signature=[spec(3)]))
    x = random_array((3,), "float32", 0)
    for value in (2.0, -1.0, 7.0):
        factor.assign(value)
        compare(compiled(x), x * np.float32(value), f"factor {value}")


def test_a_saved_model_folder(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="row")
    pooled = L.GlobalAveragePooling2D()(L.Conv2D(5, 3, activation="swish")(inputs[0]))
    model = keras.Model(
        inputs, {"score": L.Dense(2)(L.Concatenate()([pooled, inputs[1]])), "features": pooled}
    )
    model.export(tmp_path / "saved", verbose=False)
    compiled = ds.compile(tmp_path / "saved")
    given = {"image": random_array((3, 8, 8, 3), "float32", 0), "row": random_array((3, 4), "float32", 1)}
    compare(compiled(given), model(given), "saved model")
    compare(compiled.run(given), model(given), "saved model by name")


def test_a_model_saved_as_an_executable_needs_no_tensorflow(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(5, activation="gelu"), L.Dense(3)])
    ds.compile(model).save(tmp_path / "model.ds")
    x = random_array((4, 6), "float32", 0)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, deepseek as ds\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, ds.load({str(tmp_path / 'model.ds')!r})(x))\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    compare(np.load(tmp_path / "y.npy"), model(x), "loaded")


def test_subclassed_models_take_examples() -> None:
    class Twice(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(4)

        def call(self, x: Any) -> Any:
            return self.dense(self.dense(x))

    model, x = Twice(), random_array((2, 4), "float32", 0)
    with pytest.raises(ds.Error, match="example_inputs"):
        ds.compile(model)
    compiled = ds.compile(model, example_inputs=[spec(None, 4)])
    compare(compiled(x), model(x), "subclass")


def test_results_whose_size_the_data_decide() -> None:
    @tf.function(input_signature=[spec(None)])
    def f(x: Any) -> Any:
        return tf.where(x > 0), tf.boolean_mask(x, x > 0)

    x = random_array((9,), "float32", 0)
    compare(ds.compile(f)(x), f(tf.constant(x)), "masked")


def test_what_lacks_is_named_all_at_once() -> None:
    @tf.function(input_signature=[spec(3, 3)])
    def f(x: Any) -> Any:
        with tf.name_scope("first"):
            a = tf.linalg.cholesky(x)
        with tf.name_scope("second"):
            b = tf.linalg.svd(x, compute_uv=False)
        return tf.reduce_sum(a) + tf.reduce_sum(b)

    with pytest.raises(ds.Error) as caught:
        ds.compile(f)
    message = str(caught.value)
    assert caught.value.code == "unsupported"
    for part in ("Cholesky", "first/Cholesky", "Svd", "second/Svd"):
        assert part in message


def test_bad_calls_have_clear_errors() -> None:
    compiled = ds.compile(keras.Sequential([keras.Input((6,), name="x"), L.Dense(5)]))
    with pytest.raises(ds.Error, match='an array for input "x"'):
        compiled()
    with pytest.raises(ds.Error, match="at most 1 inputs"):
        compiled(np.zeros((1, 6), "float32"), np.zeros((1, 6), "float32"))
    with pytest.raises(ds.Error, match="6"):
        compiled(np.zeros((1, 7), "float32"))


def test_importing_deepseek_imports_no_tensorflow() -> None:
    code = "import sys, deepseek; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_precision_and_samples_reach_the_compiler() -> None:
    model = keras.Sequential([keras.Input((64,), name="x"), L.Dense(64, activation="relu"), L.Dense(8)])
    samples = [{"x": random_array((16, 64), "float32", i)} for i in range(2)]
    compiled = ds.compile(model, precision="int8", samples=samples)
    x = samples[0]["x"]
    compare(compiled(x), model(x), "int8", rtol=0.1)


def test_profile_takes_a_compiled_model() -> None:
    compiled = ds.compile(keras.Sequential([keras.Input((6,), name="x"), L.Dense(5)]))
    profile = ds.profile(compiled, {"x": random_array((2, 6), "float32", 0)}, runs=2)
    assert any("matmul" in step.name for step in profile.steps)
