"""LSTM layers, forward: our `lstm`, a loop over time of any length.

PyTorch traces one direction of one layer on a CPU as `mkldnn_rnn_layer` (oneDNN's).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.rules.creation import filled
from deepseek.torch.shapes import Unsupported

aten = torch.ops.aten
LSTM = 2  # oneDNN's number for the kind of cell


@rule(aten.mkldnn_rnn_layer.default)
def lstm_layer(
    b: Builder,
    x: Value,
    weight: Value,
    recurrence: Value,
    input_bias: Value,
    state_bias: Value,
    hidden: Value,
    cell: Value,
    reverse: bool,
    batch_sizes: Sequence[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[Value | None, ...]:
    if mode != LSTM or num_layers != 1 or bidirectional or batch_first or batch_sizes:
        raise Unsupported("a layer of oneDNN's that is not one direction of an LSTM")
    bias = None
    if has_biases:
        both = b.op("concat", _reordered(b, input_bias), _reordered(b, state_bias), axis=0)
        bias = _in_front(b, both)
    y, last, last_cell = b.ops(
        "lstm",
        x,
        _in_front(b, _reordered(b, weight)),
        _in_front(b, _reordered(b, recurrence)),
        bias,
        None,
        hidden,
        cell,
        direction="reverse" if reverse else "forward",
    )
    workspace = filled(b, [0], 0, "uint8")
    return b.reshape(y, b.shape(0)), last, last_cell, workspace


def _in_front(b: Builder, value: Value) -> Value:
    return b.reshape(value, [1, *value.shape])


def _reordered(b: Builder, value: Value) -> Value:
    """Rows of gates i, f, c, o in the order i, o, f, c."""
    size = int(value.shape[0]) // 4
    rest = list(value.shape)[1:]
    parts = [
        b.op(
            "slice",
            value,
            starts=[gate * size] + [0] * len(rest),
            limits=[(gate + 1) * size, *rest],
            steps=[1] * len(value.shape),
        )
        for gate in (0, 3, 1, 2)
    ]
    return b.op("concat", *parts, axis=0)
