"""LSTM, GRU and RNN layers of a training step.

PyTorch traces such a layer step by step, and its partitioner's time grows faster than the graph. Here a
layer's steps are one op until forward and backward pass have been parted, and are unrolled then
(expansion.py). What depends on no state is outside of them, for all times at once: the input's part of the
gates, and gradients of weights. Steps keep gates as they were applied, so that the backward pass need not
multiply again.

T times, B sequences, H features; gates [T, B, G*H] with the input's bias, recurrence [G*H, H], states [B, H].
Gates come in PyTorch's order: i, f, c, o (Hochreiter and Schmidhuber, 1997) and r, z, n (Cho et al., 2014).
Inference is in rules/recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.functional import linear

from deepseek.torch.traced import traced

aten = torch.ops.aten

# The ops that are taken apart then, each with what it computes.
STEPS: dict[Any, Callable[..., Any]] = {}
_tracing = False


@contextmanager
def whole_layers() -> Iterator[None]:
    """Within, traces keep the steps of layers in one op: for a compiler that unrolls them."""
    global _tracing
    before, _tracing = _tracing, True
    try:
        yield
    finally:
        _tracing = before


def steps(name: str, like: Callable[..., tuple[Tensor, ...]]) -> Callable[[Callable[..., Any]], Any]:
    """Makes a function an op of the dispatcher. `like`: tensors of its results' types, from its arguments."""

    def register(function: Callable[..., Any]) -> Any:
        def fake(*args: Any) -> Any:
            results = tuple(tensor.new_empty(tensor.shape) for tensor in like(*args))
            return results if len(results) > 1 else results[0]

        op = torch.library.custom_op(f"deepseek::{name}", mutates_args=())(function)
        op.register_fake(fake)
        STEPS[getattr(torch.ops.deepseek, name).default] = function
        return op

    return register


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _shifted(first: Tensor, later: Tensor) -> Tensor:
    """What each step began with."""
    return torch.cat([first.unsqueeze(0), later[:-1]])


def _product_over_times(a: Tensor, b: Tensor) -> Tensor:
    return a.flatten(0, 1).t() @ b.flatten(0, 1)


# -- LSTM


def _states(gates: Tensor, hidden: Tensor) -> Tensor:
    return gates[..., : hidden.shape[1]]


@steps("lstm_steps", lambda x, r, h, c: (_states(x, h), c, x, _states(x, h)))
def lstm_steps(
    gates: Tensor, recurrence: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States of all times, the last cell, gates as applied, cells of all times."""
    weight = recurrence.t()
    states, applied, cells = [], [], []
    for here in gates.unbind(0):
        i, f, c, o = (here + hidden @ weight).chunk(4, -1)
        i, f, c, o = i.sigmoid(), f.sigmoid(), c.tanh(), o.sigmoid()
        cell = f * cell + i * c
        hidden = o * cell.tanh()
        states.append(hidden)
        applied.append(torch.cat([i, f, c, o], -1))
        cells.append(cell)
    return torch.stack(states), cell.clone(), torch.stack(applied), torch.stack(cells)


@steps("lstm_steps_backward", lambda dy, dlast, x, cs, c, r: (x, c, c))
def lstm_steps_backward(
    dy: Tensor | None, dlast: Tensor | None, gates: Tensor, cells: Tensor, cell: Tensor, recurrence: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates before they are applied, of the first state and of the first cell."""
    dh, dc, found = None, dlast, []
    for t in reversed(range(gates.shape[0])):
        i, f, c, o = gates[t].chunk(4, -1)
        shown, before = cells[t].tanh(), cells[t - 1] if t else cell
        dh = _sum(dh, None if dy is None else dy[t])
        dc = _sum(dc, None if dh is None else dh * o * (1 - shown * shown))
        assert dc is not None
        do = torch.zeros_like(dc) if dh is None else dh * shown * o * (1 - o)
        d = torch.cat([dc * c * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - c * c), do], -1)
        found.append(d)
        dh, dc = d @ recurrence, dc * f
    assert dh is not None
    assert dc is not None
    return torch.stack(found[::-1]), dh, dc


def _keep_lstm(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    _, recurrence, hidden, cell = inputs
    states, _, gates, cells = output
    ctx.save_for_backward(recurrence, hidden, cell, states, gates, cells)


def _lstm_gradient(ctx: Any, dy: Tensor | None, dlast: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    recurrence, hidden, cell, states, gates, cells = ctx.saved_tensors
    if dy is None and dlast is None:
        return None, None, None, None
    d, dhidden, dcell = lstm_steps_backward(dy, dlast, gates, cells, cell, recurrence)
    return d, _product_over_times(d, _shifted(hidden, states)), dhidden, dcell


lstm_steps.register_autograd(_lstm_gradient, setup_context=_keep_lstm)


# -- GRU


@steps("gru_steps", lambda x, r, b, h: (_states(x, h), x, _states(x, h)))
def gru_steps(
    gates: Tensor, recurrence: Tensor, bias: Tensor | None, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States of all times, gates as applied, and the state's part of the last gate. `bias`: the state's."""
    states, applied, parts = [], [], []
    for here in gates.unbind(0):
        r, z, n = here.chunk(3, -1)
        of_r, of_z, part = linear(hidden, recurrence, bias).chunk(3, -1)
        r, z = (r + of_r).sigmoid(), (z + of_z).sigmoid()
        n = (n + r * part).tanh()
        hidden = (hidden - n) * z + n
        states.append(hidden)
        applied.append(torch.cat([r, z, n], -1))
        parts.append(part)
    return torch.stack(states), torch.stack(applied), torch.stack(parts)


@steps("gru_steps_backward", lambda dy, x, p, y, h, r: (x, x, h))
def gru_steps_backward(
    dy: Tensor, gates: Tensor, parts: Tensor, states: Tensor, hidden: Tensor, recurrence: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input's part of the gates, of the state's part, and of the first state."""
    dh: Tensor | None = None
    of_input, of_state = [], []
    for t in reversed(range(gates.shape[0])):
        r, z, n = gates[t].chunk(3, -1)
        before = states[t - 1] if t else hidden
        dh = dy[t] if dh is None else dy[t] + dh
        dn = dh * (1 - z) * (1 - n * n)
        dr, dz = dn * parts[t] * r * (1 - r), dh * (before - n) * z * (1 - z)
        of_input.append(torch.cat([dr, dz, dn], -1))
        of_state.append(torch.cat([dr, dz, dn * r], -1))
        dh = of_state[-1] @ recurrence + dh * z
    assert dh is not None
    return torch.stack(of_input[::-1]), torch.stack(of_state[::-1]), dh


def _keep_gru(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    _, recurrence, bias, hidden = inputs
    states, gates, parts = output
    ctx.has_bias = bias is not None
    ctx.save_for_backward(recurrence, hidden, states, gates, parts)


def _gru_gradient(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    recurrence, hidden, states, gates, parts = ctx.saved_tensors
    if dy is None:
        return None, None, None, None
    of_input, of_state, dhidden = gru_steps_backward(dy, gates, parts, states, hidden, recurrence)
    dbias = of_state.sum((0, 1)) if ctx.has_bias else None
    return of_input, _product_over_times(of_state, _shifted(hidden, states)), dbias, dhidden


gru_steps.register_autograd(_gru_gradient, setup_context=_keep_gru)


# -- RNN (Elman, 1990)


@steps("rnn_steps", lambda x, *_: (x,))
def rnn_steps(gates: Tensor, recurrence: Tensor, hidden: Tensor, relu: bool) -> Tensor:
    """States of all times. `gates`: with both biases; they are one gate's."""
    weight, states = recurrence.t(), []
    for here in gates.unbind(0):
        hidden = here + hidden @ weight
        hidden = hidden.relu() if relu else hidden.tanh()
        states.append(hidden)
    return torch.stack(states)


@steps("rnn_steps_backward", lambda dy, *_: (dy, dy[0]))
def rnn_steps_backward(dy: Tensor, states: Tensor, recurrence: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Gradients of the gates before they are applied, and of the first state."""
    dh: Tensor | None = None
    found = []
    for t in reversed(range(states.shape[0])):
        dh = dy[t] if dh is None else dy[t] + dh
        found.append(torch.where(states[t] > 0, dh, 0) if relu else dh * (1 - states[t] * states[t]))
        dh = found[-1] @ recurrence
    assert dh is not None
    return torch.stack(found[::-1]), dh


def _keep_rnn(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    _, recurrence, hidden, relu = inputs
    ctx.relu = relu
    ctx.save_for_backward(recurrence, hidden, output)


def _rnn_gradient(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    recurrence, hidden, states = ctx.saved_tensors
    if dy is None:
        return None, None, None, None
    d, dhidden = rnn_steps_backward(dy, states, recurrence, ctx.relu)
    return d, _product_over_times(d, _shifted(hidden, states)), dhidden, None


rnn_steps.register_autograd(_rnn_gradient, setup_context=_keep_rnn)


# -- layers as PyTorch calls them


def _lstm_layer(x: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Tensor]) -> Any:
    weight, recurrence, *biases = weights
    bias = biases[0] + biases[1] if biases else None
    states, cell, _, _ = lstm_steps(linear(x, weight, bias), recurrence, *state)
    return states, (states[-1], cell)


def _gru_layer(x: Tensor, state: tuple[Tensor], weights: Sequence[Tensor]) -> Any:
    weight, recurrence, *biases = weights
    states = gru_steps(linear(x, weight, *biases[:1]), recurrence, biases[1] if biases else None, *state)[0]
    return states, (states[-1],)


def _rnn_layer(relu: bool) -> Callable[..., Any]:
    def layer(x: Tensor, state: tuple[Tensor], weights: Sequence[Tensor]) -> Any:
        weight, recurrence, *biases = weights
        bias = biases[0] + biases[1] if biases else None
        states = rnn_steps(linear(x, weight, bias), recurrence, *state, relu)
        return states, (states[-1],)

    return layer


def _learns(x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], batch_first: bool) -> bool:
    """Whether this is a training step of layers that have `steps`: those without projections."""
    tensors = [x, *states, *params]
    if not _tracing or not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return False
    alike = len({tensor.dtype for tensor in tensors}) == 1 and not torch.is_autocast_enabled("cpu")
    return alike and len({state.shape[2] for state in states}) == 1 and int(x.shape[batch_first]) > 0


def _layers(
    layer: Callable[..., Any],
    x: Tensor,
    initial: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The last layer's states, then each kind of state after the last step: [layers * directions, B, H]."""
    x = x.transpose(0, 1) if batch_first else x
    each = 4 if has_biases else 2
    weights = iter([params[i : i + each] for i in range(0, len(params), each)])
    before = zip(*(state.unbind(0) for state in initial), strict=True)
    after: list[Sequence[Tensor]] = []
    for k in range(num_layers):
        shown = []
        for reverse in (False, True)[: 2 if bidirectional else 1]:
            y, last = layer(x.flip(0) if reverse else x, next(before), next(weights))
            shown.append(y.flip(0) if reverse else y)
            after.append(last)
        x = torch.cat(shown, -1) if bidirectional else shown[0]
        if train and dropout and k < num_layers - 1:
            x = torch.dropout(x, dropout, train=True)
    return x.transpose(0, 1) if batch_first else x, *(
        torch.stack(state) for state in zip(*after, strict=True)
    )


@traced(aten.lstm.input)
def lstm(x: Tensor, initial: Sequence[Tensor], params: Sequence[Tensor], *how: Any) -> tuple[Tensor, ...]:
    if _learns(x, initial, params, how[-1]):
        return _layers(_lstm_layer, x, initial, params, *how)
    results: tuple[Tensor, ...] = decomposition_table[aten.lstm.input](x, initial, params, *how)
    return results


def _one_state(op: Any, layer: Callable[..., Any]) -> None:
    @traced(op)
    def layers(x: Tensor, initial: Tensor, params: Sequence[Tensor], *how: Any) -> tuple[Tensor, ...]:
        if _learns(x, [initial], params, how[-1]):
            return _layers(layer, x, [initial], params, *how)
        results: tuple[Tensor, ...] = decomposition_table[op](x, initial, params, *how)
        return results


_one_state(aten.gru.input, _gru_layer)
_one_state(aten.rnn_tanh.input, _rnn_layer(False))
_one_state(aten.rnn_relu.input, _rnn_layer(True))
