"""What forward keeps for backward: under a budget, under PyTorch's checkpointing, with random draws."""

import re
from pathlib import Path
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


def transformer(dropout: float = 0.0) -> nn.Module:
    layers = [
        nn.TransformerEncoderLayer(64, 4, 256, dropout, "gelu", batch_first=True, norm_first=True)
        for _ in range(4)
    ]
    return nn.Sequential(*layers).train()


def step(run: Any, model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """All gradients as one vector, and the bytes kept beside inputs and results."""
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.data_ptr() != x.data_ptr():
            kept.append(tensor)
        return tensor

    model.zero_grad()
    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(x)
    y.backward(torch.ones_like(y) / y.numel())
    size = sum(t.numel() * t.element_size() for t in kept if t.data_ptr() != y.data_ptr())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), size


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_budgets_are_kept_and_gradients_stay(dropout: float) -> None:
    model, x = transformer(dropout), torch.randn(2, 16, 64)
    exact, _ = step(model, model, x)
    sizes = {}
    for budget in (None, 0.5, 0.2, 60_000):
        torch._dynamo.reset()
        run = torch.compile(model, backend="deepseek", options={"memory_budget": budget})
        got, sizes[budget] = step(run, model, x)
        assert (got - exact).norm() <= 1e-5 * exact.norm()
    assert not bridge.explain().eager_ops
    by_itself = sizes[None]
    assert sizes[0.5] <= 0.5 * by_itself
    assert sizes[0.2] <= 0.2 * by_itself
    assert sizes[60_000] <= 60_000 < by_itself


def test_a_budget_that_cannot_be_met_names_the_least() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    run = torch.compile(model, backend="deepseek", options={"memory_budget": 10})
    with pytest.raises(Exception, match="the least for this graph, or more, got 10"):
        run(torch.randn(4, 8))


@pytest.mark.parametrize("dynamic", [False, True])
def test_random_draws_are_never_repeated(dynamic: bool) -> None:
    layers = [layer for _ in range(3) for layer in (nn.Linear(32, 32), nn.Dropout(0.3), nn.GELU())]
    model, x = nn.Sequential(*layers), torch.randn(64, 32)
    exact, _ = step(model, model, x)
    for part in (0.5, 0.1, 0.0):
        torch._dynamo.reset()
        options = {"memory_budget": part}
        run = torch.compile(model, backend="deepseek", options=options, dynamic=dynamic)
        got, _ = step(run, model, x)
        assert (got - exact).norm() <= 1e-5 * exact.norm()


def test_checkpointing_of_pytorch_draws_what_eager_draws() -> None:
    block = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.GELU(), nn.Linear(32, 16))

    def function(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(block, x, use_reentrant=False)
        return result

    x = torch.randn(8, 16)
    exact, _ = step(function, block, x)
    got, _ = step(torch.compile(function, backend="deepseek"), block, x)
    torch.testing.assert_close(got, exact)


def test_views_of_one_value_are_kept_as_one() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(32, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.project(x).view(4, 6, 2, 32).transpose(1, 2)
            z: torch.Tensor = (y @ y.transpose(2, 3)).square() @ y
            return z

    torch.manual_seed(0)
    model, x = Heads(), torch.randn(4, 6, 32)
    exact = Heads().double()
    exact.load_state_dict(model.state_dict())
    run = torch.compile(model, backend="deepseek")
    found: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(x)
    y.sum().backward()
    exact(x.double()).sum().backward()
    projected = [t for t in found if t.numel() == 4 * 6 * 64]
    assert len({t.data_ptr() for t in projected}) == 1
    assert all(t.is_contiguous() for t in projected)
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad.double() - q.grad).abs().max() <= 1e-5 * q.grad.abs().max()


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_positions_of_maxima_are_kept_in_32_bits_with_channels_innermost(ceil_mode: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_mode), nn.Conv2d(8, 4, 3)
    )
    x = torch.randn(2, 3, 12, 13)
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    run = torch.compile(model, backend="deepseek")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(x)
    y.square().sum().backward()
    got = [p.grad for p in model.parameters()]
    model.zero_grad()
    exact = model.double()
    exact(x.double()).square().sum().backward()
    assert [t.shape[-1] for t in kept if not t.is_floating_point()] == [8]
    assert [t.dtype for t in kept if not t.is_floating_point()] == [torch.int32]
    for grad, p in zip(got, exact.parameters(), strict=True):
        assert grad is not None
        assert p.grad is not None
        assert (grad.double() - p.grad).abs().max() <= 1e-5 * p.grad.abs().max()


def huge_pages_are_asked_for(address: int) -> bool:
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapped := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            within = int(mapped[1], 16) <= address < int(mapped[2], 16)
        elif within and line.startswith("VmFlags:"):
            return "hg" in line.split()
    return False


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has none")
def test_large_results_lie_in_huge_pages() -> None:
    x = torch.randn(3072, 3072)  # more than malloc's heap ever takes
    y = torch.compile(lambda x: x * 2, backend="deepseek")(x)
    assert torch.equal(y, x * 2)
    middle = y.numel() * y.element_size() // 2
    assert huge_pages_are_asked_for(y.data_ptr() + middle)
    assert not huge_pages_are_asked_for(x.data_ptr() + middle)
