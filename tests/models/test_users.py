"""What users do with a compiled model: recurrent layers, generation with a cache, accumulated gradients,
results that are views of each other and of inputs.
"""

from __future__ import annotations

import copy
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
import zoo
from torch import nn


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


class Recurrent(nn.Module):
    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.layers = getattr(nn, kind)(8, 16, batch_first=True, **options)
        shown = options.get("proj_size", 16) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(shown, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        y, state = self.layers(x)
        return self.head(y), state


RECURRENT: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("LSTM", {"bias": False}),
    ("LSTM", {"proj_size": 5}),
    ("GRU", {}),
    ("GRU", {"bidirectional": True, "bias": False}),
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"num_layers": 2}),
]


@pytest.mark.parametrize(("kind", "options"), RECURRENT)
def test_recurrent_layers_train_and_infer(kind: str, options: dict[str, Any]) -> None:
    model = Recurrent(kind, **options)
    exact = copy.deepcopy(model).double()
    x = torch.randn(4, 7, 8)
    with torch._dynamo.config.patch(allow_rnn=True):
        run = torch.compile(model, backend="deepseek", fullgraph=True)
        for function, given in ((run, x), (exact, x.double())):
            y, state = function(given)
            state = state if isinstance(state, tuple) else (state,)
            (y.square().sum() + sum((k + 1) * s.sum() for k, s in enumerate(state))).backward()
        for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
            assert zoo.relative_error(p.grad, q.grad) <= 1e-5, name
        with torch.no_grad():
            assert zoo.relative_error(run(x)[0], exact(x.double())[0]) <= 1e-5
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())


@pytest.mark.parametrize("shown", ["states", "last state", "last cell"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_gradients_of_recurrent_layers_reach_inputs_and_first_states(kind: str, shown: str) -> None:
    """Whatever alone is used of the results, at several batch sizes, one step as well."""
    layers = getattr(nn, kind)(3, 6)
    exact = copy.deepcopy(layers).double()

    def loss(layers: nn.Module, x: torch.Tensor, *first: torch.Tensor) -> torch.Tensor:
        y, last = layers(x, first if kind == "LSTM" else first[0])
        last = last if kind == "LSTM" else (last, last)
        result: torch.Tensor = {"states": y, "last state": last[0], "last cell": last[1]}[shown]
        return result.square().sum()

    with torch._dynamo.config.patch(allow_rnn=True):
        run = torch.compile(loss, backend="deepseek", fullgraph=True)
        for times, batch in ((5, 2), (5, 3), (5, 9), (1, 4)):
            given = [torch.randn(times, batch, 3), torch.randn(1, batch, 6), torch.randn(1, batch, 6)]
            given = given if kind == "LSTM" else given[:2]
            ours = [t.clone().requires_grad_() for t in given]
            want = [t.double().requires_grad_() for t in given]
            got = torch.autograd.grad(run(layers, *ours), ours + list(layers.parameters()))
            right = torch.autograd.grad(loss(exact, *want), want + list(exact.parameters()))
            for g, r in zip(got, right, strict=True):
                assert zoo.relative_error(g, r) <= 1e-5
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())


def test_dropout_between_recurrent_layers_is_that_of_eager() -> None:
    layers = nn.GRU(4, 8, num_layers=3, dropout=0.5)
    x = torch.randn(5, 2, 4)
    with torch._dynamo.config.patch(allow_rnn=True):
        run = torch.compile(layers, backend="deepseek", fullgraph=True)
        results = []
        for function in (layers, run):
            torch.manual_seed(3)
            results.append(function(x)[0])
    torch.testing.assert_close(results[1], results[0])


def test_other_backends_trace_recurrent_layers_as_pytorch_does() -> None:
    seen: list[str] = []

    def look(module: Any, _: Any) -> Any:
        seen.extend(str(node.target) for node in module.graph.nodes)
        return module

    backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=look)
    layers = nn.LSTM(4, 8)
    with torch._dynamo.config.patch(allow_rnn=True):
        torch.compile(layers, backend=backend)(torch.randn(3, 2, 4, requires_grad=True))
    assert seen
    assert not [target for target in seen if "deepseek" in target]


def generator(name: str) -> nn.Module:
    transformers = zoo.transformers()
    sizes = {"vocab_size": 97, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    if name == "gpt2":
        config = transformers.GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=4, **sizes)
        return transformers.GPT2LMHeadModel(config).eval()  # type: ignore[no-any-return]
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        **sizes,
    )
    return transformers.LlamaForCausalLM(config).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generated_tokens_are_those_of_eager(name: str, cache: str) -> None:
    model: Any = generator(name)
    prompt = torch.randint(1, 97, (2, 7))
    options = {"max_new_tokens": 12, "do_sample": False, "cache_implementation": cache}
    expected = model.generate(prompt, **options)
    compiled: Any = copy.deepcopy(model)
    compiled.forward = torch.compile(compiled.forward, backend="deepseek")
    assert torch.equal(compiled.generate(prompt, **options), expected)
    explanation = bridge.explain()
    assert explanation.records
    assert explanation.eager_ops.total() == 0, str(explanation)


def test_gradients_accumulate() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))
    twin = copy.deepcopy(model)
    run = torch.compile(model, backend="deepseek")
    for _ in range(4):
        x = torch.randn(5, 8)
        (run(x).square().mean() / 4).backward()
        (twin(x).square().mean() / 4).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_writes_reach_inputs_and_their_views() -> None:
    def function(x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state.mul_(2)
        flat = x.view(-1)
        flat[2:5].add_(1)
        return flat, x[0], state, state.t()

    x, state = torch.randn(3, 4), torch.randn(3, 2)
    twins = x.clone(), state.clone()
    results = torch.compile(function, backend="deepseek")(x, state)
    for result, want in zip(results, function(*twins), strict=True):
        torch.testing.assert_close(result, want, check_stride=True)
    torch.testing.assert_close((x, state), twins)
    assert results[0].data_ptr() == x.data_ptr()
    assert results[2] is state
    results[3][0, 0] = 5
    assert state[0, 0] == 5


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad]
)
def test_a_compiled_optimizer_step_follows_eager(kind: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))
    twin = copy.deepcopy(model)
    ours, theirs = (kind(m.parameters(), lr=1e-2, weight_decay=0.1) for m in (model, twin))
    step = torch.compile(ours.step, backend="deepseek")
    for _ in range(4):
        x = torch.randn(5, 8)
        for m, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            m(x).square().mean().backward()
        step()
        theirs.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())
