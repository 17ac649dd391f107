"""Graph.gradients: of values, through ops and the parts of composed ones."""

from __future__ import annotations

import deepseek as ds
import numpy as np
import pytest


def test_gradients_of_a_sum() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["n"], dtype="float32")
    other = graph.placeholder("other", shape=["n"], dtype="float32")
    y = graph.mul(x, x)
    dx, nothing = graph.gradients([y], [None], [x, other])
    assert nothing is None
    graph.output("dx", dx)
    given = np.array([1, -2, 3], "float32")
    np.testing.assert_array_equal(ds.compile(graph).run({"x": given, "other": given})["dx"], 2 * given)


def test_an_input_of_a_composed_op_that_depends_on_another() -> None:
    """stack(x, 2x): what reaches x through 2x is 2x's, not the stack's, and counts once."""
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2], dtype="float32")
    dy = graph.placeholder("dy", shape=[2, 2], dtype="float32")
    y = graph.stack(x, graph.add(x, x), axis=0)
    graph.output("dx", graph.gradients([y], [dy], [x])[0])
    given = np.array([[1, 10], [100, 1000]], "float32")
    found = ds.compile(graph).run({"x": np.ones(2, "float32"), "dy": given})["dx"]
    np.testing.assert_array_equal(found, given[0] + 2 * given[1])


def test_stop_gradient() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2], dtype="float32")
    y = graph.mul(x, graph.stop_gradient(x))
    graph.output("y", y)
    graph.output("dx", graph.gradients([y], [None], [x])[0])
    given = np.array([3, -5], "float32")
    found = ds.compile(graph).run({"x": given})
    np.testing.assert_array_equal(found["y"], given * given)
    np.testing.assert_array_equal(found["dx"], given)


def test_as_many_gradients_as_results() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2], dtype="float32")
    with pytest.raises(ds.Error, match="1 gradients of results"):
        graph.gradients([graph.relu(x)], [], [x])
