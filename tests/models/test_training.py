"""Training through AOT Autograd: gradients, statistics, dropout, parameters after some steps."""

import copy
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
import zoo
from torch import nn

# Of gradients from their fp64 values, which are the reference for both engines.
LIMIT = 2e-4


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, dilation=1),
        nn.Hardtanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def with_attention() -> nn.Module:
    return nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True)


CASES = {
    "cnn": (small_cnn, (4, 1, 16, 16)),
    "attention": (with_attention, (3, 7, 32)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    build, shape = CASES[name]
    torch.manual_seed(0)
    model = build().train()
    exact = copy.deepcopy(model).double()
    x = torch.randn(shape, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    torch._dynamo.reset()
    bridge.reset()
    y = torch.compile(model, backend="deepseek")(x)
    y64 = exact(x64)
    dy = torch.randn_like(y)
    y.backward(dy)
    y64.backward(dy.double())
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())
    assert [record.kind for record in bridge.explain().records] == ["forward", "backward"]
    assert zoo.relative_error(y.detach(), y64.detach()) <= 1e-5
    assert zoo.relative_error(x.grad, x64.grad) <= LIMIT
    for (parameter, p), p64 in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert zoo.relative_error(p.grad, p64.grad) <= LIMIT, parameter
    for (buffer, b), b64 in zip(model.named_buffers(), exact.buffers(), strict=True):
        assert zoo.relative_error(b, b64) <= 1e-5, buffer


@pytest.mark.parametrize("name", zoo.SMALL)
def test_gradients_of_models(name: str) -> None:
    """The six architectures; the gradient of all parameters together, as an optimiser sees it."""
    model, inputs = zoo.SMALL[name].make()
    exact = copy.deepcopy(model).double()
    inputs64 = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    torch._dynamo.reset()
    y = torch.compile(model, backend="deepseek")(*inputs)
    dy = torch.randn_like(y)
    y.backward(dy)
    exact(*inputs64).backward(dy.double())
    pairs = list(zip(model.parameters(), exact.parameters(), strict=True))
    assert all((p.grad is None) == (q.grad is None) for p, q in pairs)
    ours = torch.cat([p.grad.flatten() for p, _ in pairs if p.grad is not None])
    true = torch.cat([q.grad.flatten() for _, q in pairs if q.grad is not None])
    assert zoo.relative_error(ours, true) <= LIMIT


def test_steps_follow_eager() -> None:
    torch.manual_seed(0)
    model = small_cnn().train()
    twin = copy.deepcopy(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="deepseek")
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (model, twin)]
    losses = []
    for _ in range(5):
        x, target = torch.randn(8, 1, 16, 16), torch.randint(0, 10, (8,))
        for run, optimizer in zip((compiled, twin), optimizers, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(run(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[::2] == pytest.approx(losses[1::2], rel=1e-4)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_dropout_draws_what_eager_draws() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4)
    ).train()
    x = torch.randn(8, 16)
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(7)
    expected = model(x)
    expected.sum().backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(7)
    result = torch.compile(model, backend="deepseek")(x)
    result.sum().backward()
    torch.testing.assert_close(result, expected)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    assert not bridge.explain().eager_ops
    assert bridge.explain().draws == {"aten.bernoulli.p": 2}
    assert all(len(record.pieces) == 1 for record in bridge.explain().records)


def test_images_are_kept_with_channels_innermost() -> None:
    """As both passes compute them: [2, 8, 6, 6] goes from forward to backward as [2, 6, 6, 8]."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 9, 3, padding=1)
    ).train()
    twin = copy.deepcopy(model)
    x = torch.randn(2, 3, 6, 6)
    torch._dynamo.reset()
    y = torch.compile(model, backend="deepseek")(x)
    graph: Any = y.grad_fn
    kept = [tuple(t.shape) for t in graph.saved_tensors if t.dim() == 4]
    assert (2, 6, 6, 8) in kept
    assert (2, 8, 6, 6) not in kept
    y.square().mean().backward()
    twin(x).square().mean().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 2, "stride": 2}, (5, 6)),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, (5, 4)),
        (
            {
                "kernel_size": 3,
                "stride": (1, 3),
                "padding": (0, 2),
                "groups": 2,
                "output_padding": (0, 1),
            },
            (4, 5),
        ),
        ({"kernel_size": 3, "dilation": 2, "output_padding": 1}, (4, 5)),
        ({"kernel_size": (2, 3), "stride": 2, "dilation": (1, 2), "bias": False}, (4, 4)),
    ],
)
def test_gradients_of_transposed_convolutions(options: dict[str, Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(16, 32, **options)
    exact = copy.deepcopy(model).double()
    x = torch.randn(2, 16, *size, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    torch._dynamo.reset()
    y = torch.compile(model, backend="deepseek")(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    exact(x64).backward(dy.double())
    assert zoo.relative_error(x.grad, x64.grad) <= 1e-5
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        assert zoo.relative_error(p.grad, q.grad) <= 1e-5
