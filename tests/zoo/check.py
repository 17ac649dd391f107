"""One model, ours against PyTorch eager: a forward pass in eval mode and one training step.

The reference is eager in fp64, of the same weights, inputs and random draws. Ours may be off by a few times
what eager itself is off in fp32, or by a small bound.
"""

from __future__ import annotations

import copy
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Inputs = dict[str, Any]
Build = Callable[[], tuple[torch.nn.Module, Inputs]]

FORWARD_LIMIT = 2e-5  # of the largest element
GRADIENT_LIMIT = 2e-4
TIMES_EAGER = 4  # ours may be off by this many times eager's own fp32 error
NOISE = 1e-6  # gradients below this share of the model's largest are rounding noise (a key's bias)


@dataclass
class Verdict:
    """What became of one model."""

    name: str
    state: str = "right"  # or "wrong", "error", "time-out"
    reason: str = ""
    left: dict[str, int] = field(default_factory=dict)  # ops that ran in PyTorch, how many of each
    breaks: int = 0  # graph breaks in Dynamo
    graphs: int = 0  # that PyTorch handed to us
    seconds: float = 0.0  # for the compiled forward pass and step, compilation included
    worst: float = 0.0  # largest error over its limit

    @property
    def ours(self) -> bool:
        return self.state == "right" and not self.left


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a model's output in order; caches and other objects are passed over."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def as_double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(as_double(item) for item in value)
    return value


def perturb(model: torch.nn.Module) -> None:
    """Fresh models hide mistakes: branches scaled by zero, norms and statistics that do nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if (
                parameter.is_floating_point()
                and parameter.numel() > 1
                and bool((parameter == parameter.flatten()[0]).all())
            ):
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)


def seed() -> None:
    """Of every generator that a model may draw from."""
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)


def forward(run: Callable[..., Any], model: torch.nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    model.eval()
    seed()
    with torch.no_grad():
        return list(tensors(run(**inputs)))


def step(run: Callable[..., Any], model: torch.nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers of one training step. The loss weighs every float output."""
    model.train()
    model.zero_grad()
    seed()
    outputs = [y for y in tensors(run(**inputs)) if y.is_floating_point() and y.requires_grad and y.numel()]
    weights = torch.Generator().manual_seed(3)
    loss = torch.zeros(())
    for y in outputs:
        weight = torch.rand(y.shape, generator=weights).to(y.dtype)
        loss = loss + (torch.where(y.isfinite(), y, 0) * weight).mean()
    loss.backward()
    found = {"loss": loss.detach()}
    found |= {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    found |= {f"buffer {n}": b.detach().clone() for n, b in model.named_buffers() if b.is_floating_point()}
    return found


def _distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest difference where both are finite; infinite where they differ in what is."""
    x, y = x.double(), y.double()
    finite = y.isfinite()
    if (
        x.shape != y.shape
        or not torch.equal(x.isfinite(), finite)
        or not torch.equal(x[~finite].nan_to_num(), y[~finite].nan_to_num())
    ):
        return float("inf")
    return float((x - y).abs()[finite].max()) if finite.any() else 0.0


def _largest(x: torch.Tensor) -> float:
    x = x.double()[x.isfinite()]
    return float(x.abs().max()) if x.numel() else 0.0


class Comparison:
    """Collects the worst error over its limit."""

    def __init__(self) -> None:
        self.worst, self.where = 0.0, ""

    def add(
        self,
        name: str,
        ours: torch.Tensor,
        eager: torch.Tensor,
        exact: torch.Tensor,
        limit: float,
        floor: float = 0,
    ) -> None:
        if not exact.is_floating_point() and not exact.is_complex():
            ratio = 0.0 if torch.equal(ours, eager) else float("inf")
        else:
            if _distance(eager, exact) == float("inf"):
                exact = eager  # a number too small or large in fp32 for what the model does with it
            off = _distance(ours, exact)
            allowed = max(limit * _largest(exact), TIMES_EAGER * min(_distance(eager, exact), 1e300), floor)
            ratio = 0.0 if off == 0 else off / max(allowed, 1e-300)
        if not ratio <= self.worst:
            self.worst, self.where = ratio, name


def check(name: str, build: Build, with_step: bool = True) -> Verdict:
    import deepseek.torch as bridge

    torch.manual_seed(0)
    model, inputs = build()
    perturb(model)
    verdict = Verdict(name)
    eager_model = copy.deepcopy(model)
    eager = [
        forward(eager_model, eager_model, inputs),
        step(eager_model, eager_model, inputs) if with_step else {},
    ]
    try:
        exact_model = copy.deepcopy(model).double()
        inputs64 = {key: as_double(value) for key, value in inputs.items()}
        exact: list[Any] = [
            forward(exact_model, exact_model, inputs64),
            step(exact_model, exact_model, inputs64) if with_step else {},
        ]
        if len(exact[0]) != len(eager[0]) or exact[1].keys() != eager[1].keys():
            raise RuntimeError("another structure in fp64")
    except Exception:
        exact = eager  # the model insists on fp32
    torch._dynamo.reset()
    bridge.reset()
    torch._dynamo.utils.counters.clear()
    started = time.monotonic()
    compared = Comparison()
    try:
        compiled = torch.compile(model, backend="deepseek", options={"tune": "off", "threads": 1})
        outputs = forward(compiled, model, inputs)
        found = step(compiled, model, inputs) if with_step else {}
    except Exception as error:
        verdict.state = "error"
        verdict.reason = "".join(traceback.format_exception(error))[-3000:]
    else:
        compared_lengths = (len(outputs), found.keys()) == (len(eager[0]), eager[1].keys())
        if not compared_lengths:
            compared.add("number of results", torch.zeros(1), torch.ones(1), torch.ones(1).bool(), 0)
        else:
            for i, (ours, e, x) in enumerate(zip(outputs, *(run[0] for run in (eager, exact)), strict=True)):
                compared.add(f"output {i}", ours, e, x, FORWARD_LIMIT)
            scale = max((_largest(g) for key, g in exact[1].items() if key.startswith("gradient")), default=0)
            for key, ours in found.items():
                limit = GRADIENT_LIMIT if key.startswith("gradient") else FORWARD_LIMIT
                floor = NOISE * (scale if key.startswith("gradient") else 1)
                compared.add(key, ours, eager[1][key], exact[1][key], limit, floor)
        verdict.worst = compared.worst
        if not compared.worst <= 1:
            verdict.state, verdict.reason = "wrong", f"{compared.where}: {compared.worst:.3g} times the limit"
    verdict.seconds = time.monotonic() - started
    verdict.left = dict(Counter(bridge.explain().eager_ops))
    verdict.graphs = len(bridge.explain().records)
    verdict.breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    if verdict.breaks and not verdict.reason:
        verdict.reason = "; ".join(
            " ".join(str(k).split())[:120] for k in torch._dynamo.utils.counters["graph_break"]
        )
    return verdict
