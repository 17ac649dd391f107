"""LSTM layers, backward (forward: rules/recurrent.py).

It works from inputs and results, without oneDNN's workspace: gates of all times come from one product, as do
gradients of weights; only cells and states go step by step. Hochreiter and Schmidhuber, 1997, with gates in
PyTorch's order i, f, c, o.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten
LSTM = 2  # oneDNN's number for the kind of cell


@decomposition(aten.mkldnn_rnn_layer_backward.default)
def lstm_layer_backward(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    input_bias: Tensor,
    state_bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    y: Tensor,
    last: Tensor,
    last_cell: Tensor,
    dy: Tensor | None,
    dlast: Tensor | None,
    dlast_cell: Tensor | None,
    reverse: bool,
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    *rest: Any,
) -> Any:
    if mode != LSTM:
        return NotImplemented
    if reverse:
        x, y, dy = x.flip(0), y.flip(0), None if dy is None else dy.flip(0)
    times = x.shape[0]
    states = torch.cat([hidden, y[:-1]])
    gates = x @ weight.t() + states @ recurrence.t()
    if has_biases:
        gates = gates + (input_bias + state_bias)
    i, f, c, o = gates.chunk(4, -1)
    i, f, c, o = i.sigmoid(), f.sigmoid(), c.tanh(), o.sigmoid()
    cells = [cell[0]]
    for t in range(times):
        cells.append(f[t] * cells[-1] + i[t] * c[t])
    before, shown = torch.stack(cells[:-1]), torch.stack(cells[1:]).tanh()
    # What the gradients of a cell and of its output are multiplied by on their way to the gates.
    to_cell = o * (1 - shown * shown)
    slopes = torch.stack([c * i * (1 - i), before * f * (1 - f), i * (1 - c * c)], 2)
    to_output = shown * o * (1 - o)
    dh = torch.zeros_like(hidden[0]) if dlast is None else dlast[0]
    dc = torch.zeros_like(cell[0]) if dlast_cell is None else dlast_cell[0]
    found: list[Tensor] = []
    for t in reversed(range(times)):
        if dy is not None:
            dh = dh + dy[t]
        dc = dc + dh * to_cell[t]
        d = torch.cat([(dc.unsqueeze(1) * slopes[t]).flatten(1), dh * to_output[t]], 1)
        found.append(d)
        dh, dc = d @ recurrence, dc * f[t]
    dgates = torch.stack(found[::-1])
    rows = dgates.flatten(0, 1)
    dx, dbias = dgates @ weight, rows.sum(0) if has_biases else torch.zeros_like(input_bias)
    dweight, drecurrence = rows.t() @ x.flatten(0, 1), rows.t() @ states.flatten(0, 1)
    dx = dx.flip(0) if reverse else dx
    return dx, dweight, drecurrence, dbias, dbias.clone(), dh.unsqueeze(0), dc.unsqueeze(0)
