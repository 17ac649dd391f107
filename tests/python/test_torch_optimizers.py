"""Optimizers whose step is compiled: eager's numbers, state and versions, in parameters' own memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from deepseek.torch import report
from torch import nn, optim

SHAPES = ((33, 17), (5,), (1,), (), (16, 3, 3, 3), (150, 200), (0, 3))

Make = Callable[[list[nn.Parameter]], optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: optim.SGD(p, lr=torch.tensor(0.01), momentum=0.9, weight_decay=1e-2, foreach=False),
    "sgd foreach": lambda p: optim.SGD(p, lr=torch.tensor(0.01), momentum=0.9, foreach=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=1e-2, foreach=False),
    "adam foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "adamw": lambda p: optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True, foreach=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=torch.tensor(0.01), momentum=0.9),
}


def trained(
    make: Make, compiled: bool, strides: torch.memory_format = torch.contiguous_format
) -> tuple[list[nn.Parameter], optim.Optimizer, int]:
    """Parameters and optimizer after ten steps under a schedule, with the state stored and loaded in between,
    and how many graphs that took.
    """
    torch._dynamo.reset()
    report.RECORDS.clear()
    torch.manual_seed(1)
    parameters = []
    for shape in SHAPES:
        value = torch.randn(shape)
        parameters.append(nn.Parameter(value.to(memory_format=strides) if len(shape) == 4 else value))
    optimizer = make(parameters)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)
    step: Callable[[], Any] = (
        torch.compile(lambda: optimizer.step(), backend="deepseek") if compiled else optimizer.step
    )
    addresses = [p.data_ptr() for p in parameters]
    for count in range(10):
        for p in parameters:
            p.grad = torch.randn(p.shape).to(memory_format=strides) if p.dim() == 4 else torch.randn(p.shape)
        versions = [p._version for p in parameters]
        step()
        assert all(p._version > before for p, before in zip(parameters, versions, strict=True))
        schedule.step()
        if count == 5:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [p.data_ptr() for p in parameters] == addresses
    return parameters, optimizer, len(report.RECORDS)


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Elements that cancel may differ by roundings of large ones."""
    most = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    torch.testing.assert_close(got, wanted, rtol=2e-6, atol=1e-6 * max(1.0, most))


def check(make: Make, strides: torch.memory_format = torch.contiguous_format) -> None:
    wanted, reference, _ = trained(make, False, strides)
    got, optimizer, graphs = trained(make, True, strides)
    assert graphs <= 3  # the first step, which makes the state; the others; those after loading
    for record in report.RECORDS:
        assert len(record.pieces) == 1
        assert not record.eager
    for p, q in zip(wanted, got, strict=True):
        close(q, p)
        for name, value in reference.state[p].items():
            close(optimizer.state[q][name], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_eager(name: str) -> None:
    check(OPTIMIZERS[name])


def test_a_step_gives_no_tensors() -> None:
    trained(OPTIMIZERS["adamw"], True)
    for record in report.RECORDS[1:]:
        ((_, executable),) = record.pieces
        assert not executable.outputs
        assert "copy_" not in executable.explain()


def test_parameters_whose_channels_are_last() -> None:
    check(OPTIMIZERS["adam"], torch.channels_last)


def test_what_reads_old_values_gets_them() -> None:
    def update(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        old = x.clone()
        product = y @ x
        x.add_(y.t())
        y.copy_(old.t())
        z.mul_(x)
        y[1].zero_()
        return old, product, x.sum(), z.t(), x

    @torch.compile(backend="deepseek", fullgraph=True)
    def compiled(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return update(x, y, z)

    for mode in (torch.no_grad, torch.inference_mode):
        given = [torch.randn(6, 6) for _ in range(3)]
        others = [t.clone() for t in given]
        for _ in range(3):
            with mode():
                wanted, got = update(*given), compiled(*others)
            for want, have in zip([*wanted, *given], [*got, *others], strict=True):
                torch.testing.assert_close(have, want, rtol=2e-6, atol=1e-6)
        assert got[4] is others[0]
        assert got[3].data_ptr() == others[2].data_ptr()


def test_two_inputs_trade_values() -> None:
    @torch.compile(backend="deepseek", fullgraph=True)
    def trade(x: torch.Tensor, y: torch.Tensor) -> None:
        kept = x.clone()
        x.copy_(y)
        y.copy_(kept)

    x, y = torch.randn(4, 5), torch.randn(4, 5)
    x0, y0 = x.clone(), y.clone()
    trade(x, y)
    assert torch.equal(x, y0)
    assert torch.equal(y, x0)


def test_weights_are_packed_anew_after_a_compiled_step() -> None:
    model = nn.Linear(64, 64)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    step = torch.compile(lambda: optimizer.step(), backend="deepseek")
    infer = torch.compile(model, backend="deepseek")
    x = torch.randn(8, 64)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        step()
        with torch.no_grad():
            torch.testing.assert_close(infer(x), model(x), rtol=1e-5, atol=1e-5)


def test_ops_on_lists() -> None:
    def everything(x: list[torch.Tensor]) -> list[list[torch.Tensor] | tuple[torch.Tensor, ...]]:
        return [
            torch._foreach_add(x, x, alpha=2),
            torch._foreach_add(x, torch.tensor(1.5), alpha=3),
            torch._foreach_sub(x, [1.0, 2.0]),
            torch._foreach_mul(x, torch.tensor(3.0)),
            torch._foreach_div(x, [2.0, 3.0]),
            torch._foreach_pow(2.0, x),
            torch._foreach_pow(x, [2.0, 3.0]),
            torch._foreach_addcmul(x, x, x, 0.5),
            torch._foreach_addcdiv(x, x, x, [1.0, 2.0]),
            torch._foreach_lerp(x, torch._foreach_neg(x), 0.3),
            torch._foreach_lerp(x, torch._foreach_sin(x), torch._foreach_abs(x)),
            torch._foreach_norm(x),
            torch._foreach_norm(x, 1),
            torch._foreach_maximum(x, 0.5),
            torch._foreach_clamp_max(x, torch._foreach_neg(x)),
            torch._foreach_sqrt(torch._foreach_abs(x)),
        ]

    given = [torch.randn(3, 4), torch.randn(5)]
    report.RECORDS.clear()
    got = torch.compile(everything, backend="deepseek", fullgraph=True)(given)
    for mine, theirs in zip(got, everything(given), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)
    assert not report.RECORDS[-1].eager
