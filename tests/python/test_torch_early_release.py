"""Within a run large tensors go as soon as they have been read, and come when they are first written."""

from __future__ import annotations

import weakref

import deepseek
import pytest
import torch
from deepseek.torch import piece
from torch import nn

SIZE = 512  # matrices of 1 MB


def test_inputs_go_before_later_results_come(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = deepseek.Graph()
    left = [graph.placeholder(f"left{i}", [SIZE, SIZE]) for i in range(3)]
    for i, x in enumerate(left):
        graph.output(f"product{i}", x @ x)
    seen: list[int] = []
    held: list[weakref.ref[torch.Tensor]] = []

    def empty(*layout: object) -> torch.Tensor:
        seen.append(sum(reference() is not None for reference in held))
        return torch.empty_strided(*layout[:2], dtype=layout[2])  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(piece, "empty", empty)
    run = piece.Piece(deepseek.compile(graph), [], []).run
    tensors = [torch.randn(SIZE, SIZE) for _ in left]
    wanted = [x @ x for x in tensors]
    kept = tensors[1]
    held += [weakref.ref(x) for x in tensors]
    given = list(tensors)
    tensors.clear()
    before = kept.clone()
    for got, right in zip(run(given, ((SIZE, SIZE),) * 3), wanted, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-3)
    assert not given
    assert seen[0] == len(held)
    assert seen[-1] < len(held)
    assert sum(reference() is not None for reference in held) == 1
    assert torch.equal(kept, before)


class Model(nn.Module):
    """Saves results that the user sees, views of them, and intermediate values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.tanh(self.first(x))
        return torch.sigmoid(self.second(y.t()) * y).exp(), y[1:]


def slopes(model: nn.Module) -> list[torch.Tensor]:
    found = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


@pytest.mark.parametrize("hooked", [False, True])
def test_what_others_hold_stays(hooked: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = Model(), torch.randn(SIZE, SIZE)
    result, view = model(x)
    (result.sum() + view.square().sum()).backward()
    want = slopes(model)
    compiled = torch.compile(model, backend="deepseek")
    packed: list[tuple[torch.Tensor, torch.Tensor]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed.append((tensor, tensor.clone()))
        return tensor

    for _ in range(2):
        if hooked:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                result, view = compiled(x)
        else:
            result, view = compiled(x)
        copies = result.detach().clone(), view.detach().clone()
        (result.sum() + view.square().sum()).backward()
        for got, right in zip(slopes(model), want, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4)
        assert torch.equal(result, copies[0])
        assert torch.equal(view, copies[1])
    assert bool(packed) == hooked
    assert all(torch.equal(tensor, copy) for tensor, copy in packed)
