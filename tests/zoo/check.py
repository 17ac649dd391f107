"""One model, ours against PyTorch eager: a forward pass in eval mode and one training step.

The reference is eager in fp64, of the same weights, inputs and random draws. Ours may be off by a few
times what eager itself is off in fp32, or by a small bound. Where it is further off, eager runs again with
weights that differ in their last bits: of some models (a ReLU that takes 0 but for rounding, a batch norm
of two values) no fp32 result is nearer, and the verdict says so.
"""

from __future__ import annotations

import copy
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Inputs = dict[str, Any]
Build = Callable[[], tuple[torch.nn.Module, Inputs]]

FORWARD_LIMIT = 2e-5  # of the largest element
GRADIENT_LIMIT = 2e-4
TIMES_EAGER = 4  # ours may be off by this many times eager's own fp32 error
SHAKEN_RUNS = 6  # of eager, with other last bits
SHAKEN_BITS = TIMES_EAGER  # units in the last place by which weights then differ at most
NOISE = 1e-6  # gradients below this share of the model's largest are rounding noise (a key's bias)


@dataclass
class Verdict:
    """What became of one model."""

    name: str
    # Or "wrong", "error", "time-out"; "dynamo" where PyTorch's own tracing already fails or differs so.
    state: str = "right"
    reason: str = ""
    left: dict[str, int] = field(default_factory=dict)  # ops that ran in PyTorch, how many of each
    breaks: int = 0  # graph breaks in Dynamo
    graphs: int = 0  # that PyTorch handed to us
    seconds: float = 0.0  # of the processor, for the compiled forward pass and step, compilation included
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


def _known(eager: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """The exact result; eager's where only one is finite: numbers too small or large for a model."""
    return eager if _distance(eager, exact) == float("inf") else exact


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
        shaken: Sequence[torch.Tensor] = (),
    ) -> None:
        if not exact.is_floating_point() and not exact.is_complex():
            ratio = 0.0 if any(torch.equal(ours, e) for e in (eager, *shaken)) else float("inf")
        else:
            exact = _known(eager, exact)
            off = _distance(ours, exact)
            allowed = max(limit * _largest(exact), TIMES_EAGER * min(_distance(eager, exact), 1e300), floor)
            allowed = max([allowed, *(min(_distance(e, exact), 1e300) for e in shaken)])
            ratio = 0.0 if off == 0 else off / max(allowed, 1e-300)
        if not ratio <= self.worst:
            self.worst, self.where = ratio, name


Runs = tuple[list[torch.Tensor], dict[str, torch.Tensor]]  # of the forward pass, of the step


def run_both(run: Callable[..., Any], model: torch.nn.Module, inputs: Inputs, with_step: bool) -> Runs:
    return forward(run, model, inputs), step(run, model, inputs) if with_step else {}


def as_double_runs(model: torch.nn.Module, inputs: Inputs, like: Runs, with_step: bool, **wrap: Any) -> Runs:
    """The runs in fp64; `like` where the model insists on fp32. `wrap`: through torch.compile with these."""
    try:
        exact = copy.deepcopy(model).double()
        run = torch.compile(exact, **wrap) if wrap else exact
        runs = run_both(run, exact, {key: as_double(value) for key, value in inputs.items()}, with_step)
        same = len(runs[0]) == len(like[0]) and runs[1].keys() == like[1].keys()
    except Exception:
        return like
    return runs if same else like


def shaken_runs(model: torch.nn.Module, inputs: Inputs, with_step: bool) -> Iterator[Runs]:
    """Eager runs with each weight off by some units in its last place."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(SHAKEN_RUNS):
        shaken = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in shaken.parameters():
                if parameter.is_floating_point():
                    units = torch.rand(parameter.shape, generator=generator) * 2 - 1
                    parameter *= 1 + units * SHAKEN_BITS * torch.finfo(torch.float32).eps
        yield run_both(shaken, shaken, inputs, with_step)


def compare(ours: Runs, eager: Runs, exact: Runs, shaken: Sequence[Runs] = ()) -> Comparison:
    compared = Comparison()
    if (len(ours[0]), ours[1].keys()) != (len(eager[0]), eager[1].keys()):
        compared.add("number of results", torch.zeros(1), torch.ones(1), torch.ones(1).bool(), 0)
        return compared
    for i, (y, e, x) in enumerate(zip(ours[0], eager[0], exact[0], strict=True)):
        compared.add(f"output {i}", y, e, x, FORWARD_LIMIT, shaken=[run[0][i] for run in shaken])
    gradients = [_known(eager[1][key], g) for key, g in exact[1].items() if key.startswith("gradient")]
    scale = max(map(_largest, gradients), default=0)
    for key, y in ours[1].items():
        limit = GRADIENT_LIMIT if key.startswith("gradient") else FORWARD_LIMIT
        floor = NOISE * (scale if key.startswith("gradient") else 1)
        shaken_here = [run[1][key] for run in shaken]
        compared.add(key, y, eager[1][key], exact[1][key], limit, floor, shaken_here)
    return compared


def differs_before_us(model: torch.nn.Module, inputs: Inputs, ours: Runs | None, with_step: bool) -> bool:
    """Whether PyTorch's own torch.compile without a compiler fails too, or gives what ours gives."""
    torch._dynamo.reset()
    try:
        traced = copy.deepcopy(model)
        eager = run_both(torch.compile(traced, backend="aot_eager"), traced, inputs, with_step)
    except Exception:
        return ours is None
    if ours is None:
        return False
    return (
        compare(ours, eager, as_double_runs(model, inputs, eager, with_step, backend="aot_eager")).worst <= 1
    )


def check(name: str, build: Build, with_step: bool = True) -> Verdict:
    """Wrong is what is so with other weights and inputs too: in some a ReLU takes 0 but for rounding."""
    verdict = check_draw(name, build, with_step, draw=0)
    if verdict.state == "wrong":
        second = check_draw(name, build, with_step, draw=1)
        if second.state == "right":
            second.reason = f"with other weights; at first {verdict.reason}"
            return second
    return verdict


def check_draw(name: str, build: Build, with_step: bool, draw: int) -> Verdict:
    import deepseek.torch as bridge

    torch.manual_seed(draw)
    model, inputs = build()
    perturb(model)
    verdict = Verdict(name)
    fresh, eager_model = copy.deepcopy(model), copy.deepcopy(model)
    eager = run_both(eager_model, eager_model, inputs, with_step)
    exact = as_double_runs(model, inputs, eager, with_step)
    forward(model, model, inputs)  # what transformers sets up in the first call of all breaks Dynamo's graphs
    torch._dynamo.reset()
    bridge.reset()
    torch._dynamo.utils.counters.clear()
    started = time.process_time()
    ours = None
    try:
        compiled = torch.compile(model, backend="deepseek", options={"tune": "off", "threads": 1})
        ours = run_both(compiled, model, inputs, with_step)
    except Exception as error:
        verdict.state = "error"
        verdict.reason = "".join(traceback.format_exception(error))[-3000:]
    else:
        compared = compare(ours, eager, exact)
        verdict.worst = compared.worst
        if not compared.worst <= 1:
            verdict.reason = f"{compared.where}: {compared.worst:.3g} times the limit"
            shaken = list(shaken_runs(fresh, inputs, with_step))
            if compare(ours, eager, exact, shaken).worst <= 1:
                verdict.reason += "; eager is as far off when last bits of the weights differ"
            else:
                verdict.state = "wrong"
    verdict.seconds = time.process_time() - started
    verdict.left = dict(Counter(bridge.explain().eager_ops))
    verdict.graphs = len(bridge.explain().records)
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    verdict.breaks = sum(breaks.values())
    if verdict.breaks and not verdict.reason:
        verdict.reason = "; ".join(" ".join(str(k).split())[:120] for k in breaks)
    if verdict.state != "right" and differs_before_us(fresh, inputs, ours, with_step):
        verdict.state = "dynamo"
    return verdict
