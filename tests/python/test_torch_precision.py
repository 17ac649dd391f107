"""`deepseek.precision`: training with values stored in 16 bits, and PyTorch's own autocast."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import deepseek as ds
import deepseek.torch as bridge
import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
    return nn.Sequential(layer, nn.Linear(64, 5))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Flatten(1),
        nn.Linear(32 * 16, 5),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "transformer": (transformer, (8, 16, 64)),
    "convolutions": (convolutions, (8, 3, 16, 16)),
}


@contextmanager
def kept() -> Iterator[list[torch.Tensor]]:
    """What is kept for the backward pass, parameters apart."""
    found: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            found.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def size(tensors: list[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def gradients(run: Any, model: nn.Module, x: torch.Tensor, name: str) -> tuple[torch.Tensor, int]:
    """All gradients as one vector, and the bytes kept beside the input."""
    model.zero_grad()
    with ds.precision(name), kept() as found:
        y = run(x)
    assert y.dtype == torch.float32
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    inside = [t for t in found if t.data_ptr() not in (x.data_ptr(), y.data_ptr())]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), size(inside)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_takes_half_the_bytes(case: str, dynamic: bool) -> None:
    build, shape = CASES[case]
    model, x = build().train(), torch.randn(shape)
    run = torch.compile(model, backend="deepseek", dynamic=dynamic)
    exact, bytes_exact = gradients(run, model, x, "fp32")
    for name, allowed in (("bf16", 0.02), ("fp16", 0.01)):
        got, fewer = gradients(run, model, x, name)
        assert 0 < (got - exact).norm() <= allowed * exact.norm()
        assert fewer <= 0.55 * bytes_exact
    assert not bridge.explain().eager_ops


@pytest.mark.filterwarnings("ignore:precision")
def test_a_function_is_compiled_once_for_each_precision() -> None:
    model = nn.Linear(32, 64)
    run = torch.compile(model, backend="deepseek")
    x = torch.randn(64, 32)
    with torch.no_grad():
        exact = run(x)
        for _ in range(2):
            with ds.precision("bf16"):
                rounded = run(x)
            with ds.precision("bf16"), ds.precision("fp32"):
                assert torch.equal(run(x), exact)
            assert torch.equal(run(x), exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
    assert len(bridge.explain().records) == 3


def test_kernels_hand_on_half_the_bytes() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["n", 64], dtype="float32")
    w = graph.placeholder("w", shape=[64, 64], dtype="float32")
    y = x
    for _ in range(3):
        y = graph.tanh(graph.matmul(y, w))
    graph.output("y", y)
    generator = np.random.default_rng(0)
    given = [generator.standard_normal(shape, dtype="float32") / 8 for shape in ((512, 64), (64, 64))]
    arena, results = {}, {}
    for storage in ("fp32", "bf16", "fp16"):
        context = ds.Context(ds.compile(graph, storage=storage, tune="off", threads=1))
        results[storage] = context.run(given)[0].numpy()
        arena[storage] = context.arena_bytes
    assert arena["bf16"] == arena["fp16"]
    assert arena["fp32"] - arena["bf16"] == 512 * 64 * 2 * 2  # two values at a time
    for storage, allowed in (("bf16", 2**-8), ("fp16", 2**-11)):
        error = np.abs(results[storage] - results["fp32"]).max()
        assert 0 < error <= 4 * allowed * np.abs(results["fp32"]).max()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ds.Error, match="'fp8'"), ds.precision("fp8"):
        pass
    with pytest.raises(ds.Error, match="storage 'fp32', 'bf16' or 'fp16'"):
        ds.compile(ds.Graph(), storage="fp8")


def test_a_loss_scale_finds_its_way_down_and_skips_steps_that_overflow() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    run = torch.compile(model, backend="deepseek")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    x, target = torch.randn(64, 64), torch.randn(64, 1)
    losses, skipped = [], 0
    for _ in range(40):
        with ds.precision("fp16"):
            loss = nn.functional.mse_loss(run(x), target)
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        skipped += all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert 0 < skipped < 30
    assert scaler.get_scale() < 2.0**40
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_autocast(case: str, dtype: torch.dtype) -> None:
    """The dtypes are those of eager autocast, the values as far from exact ones as its are."""
    build, shape = CASES[case]
    model, x = build().train(), torch.randn(shape)
    run = torch.compile(model, backend="deepseek")

    def step(function: Any, dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            y = function(x)
        y.float().square().mean().backward()
        return y, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    (exact, exact_slope), (want, _), (got, slope) = step(model, None), step(model, dtype), step(run, dtype)
    assert got.dtype == want.dtype == dtype
    assert (got - exact).norm() <= 0.02 * exact.norm()
    assert (slope - exact_slope).norm() <= 0.03 * exact_slope.norm()
    assert not bridge.explain().eager_ops, str(bridge.explain())
    assert run(x).dtype == torch.float32


def test_scores_of_bf16_attention_are_not_rounded() -> None:
    q, k, v = (4 * torch.randn(2, 4, 9, 8) for _ in range(3))
    dy = torch.randn(2, 4, 9, 8).bfloat16()

    def results(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [x.bfloat16().to(dtype).requires_grad_() for x in (q, k, v)]
        y = function(*inputs)
        return [y, *torch.autograd.grad(y, inputs, dy.to(dtype))]

    attention = nn.functional.scaled_dot_product_attention
    exact = results(attention, torch.float64)
    ours = results(torch.compile(attention, backend="deepseek"), torch.bfloat16)
    for got, want in zip(ours, exact, strict=True):
        assert float((got.double() - want).detach().abs().max()) < 2**-8 * float(want.detach().abs().max())


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "gelu", "elu"])
def test_gradients_of_16_bit_floats_are_rounded_once(name: str) -> None:
    function = getattr(torch.nn.functional, name)
    arguments = {"dim": -1} if "softmax" in name else {}
    x, dy = (torch.randn(16, 33) * 3).bfloat16(), torch.randn(16, 33).bfloat16()

    def gradient(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        leaf = x.to(dtype).detach().requires_grad_()
        function(leaf, **arguments).backward(dy.to(dtype))
        assert leaf.grad is not None
        return leaf.grad

    ours = gradient(torch.compile(function, backend="deepseek"), torch.bfloat16)
    eager, exact = gradient(function, torch.bfloat16), gradient(function, torch.float64)
    error, allowed = ((g.double() - exact).abs().max() for g in (ours, eager))
    assert error <= 1.5 * allowed + 1e-6
