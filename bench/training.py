"""Times a training step in PyTorch eager, Inductor and deepseek side by side in one run.

A step is what users write: zero_grad, loss, backward, optimizer.step. Ways, of which the best of a side
counts: eager with PyTorch's fused optimizer, the same with channels last where there are images; the loss
compiled, with the fused optimizer or with the step of the plain one compiled as well. Engines take turns as
in models.py. Memory and losses come from a process per way: the most that was resident during steps after
the first three, less what was after importing PyTorch and the model's library.

    ./dev bench training                   every model, all cores; then the tables of training_memory.py
    ./dev bench training --models resnet18 unet --rounds 15 --json out.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import training_memory
from tqdm import tqdm
from turns import in_turns, keep, machine, prepare

if TYPE_CHECKING:
    import torch

PEERS = ("eager", "eager_channels_last", "inductor", "inductor_optimizer")
OURS = ("deepseek", "deepseek_optimizer")
WAYS = PEERS + OURS
WARM_STEPS = 3
JOB = "--job"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", help="names in bench/trainees.py; default: all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--isa", choices=["native", "avx2"], default="native", help="cap every engine at this ISA"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=float, default=0.5, help="seconds per way and round")
    parser.add_argument("--steps", type=int, default=10, help="after which losses are compared")
    parser.add_argument("--skip", nargs="*", default=[], help="ways to leave out")
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument(JOB, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def step_of(name: str, way: str) -> Callable[[], torch.Tensor]:
    """A training step of the model in that way; it returns the loss."""
    import torch
    import trainees

    torch._dynamo.config.allow_rnn = True
    trainee = trainees.TRAINEES[name]
    model, loss, batch = trainee.make()
    if way == "eager_channels_last":
        if batch[0].dim() != 4:
            raise ValueError("no images")
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batch = tuple(x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in batch)
    optimizer = trainee.optimizer(model)
    forward, update = loss, optimizer.step
    if not way.startswith("eager"):
        backend = way.removesuffix("_optimizer")
        forward = torch.compile(loss, backend=backend)
        if way.endswith("_optimizer"):
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = False, None
            update = torch.compile(optimizer.step, backend=backend)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = forward(model, *batch)
        value.backward()
        update()
        return value.detach()

    return step


def resident_mb(field: str) -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def job(name: str, way: str, steps: int) -> dict[str, Any]:
    """Losses and memory of one way, in a process that does nothing else."""
    import trainees

    trainees.TRAINEES[name].make()  # loads the model's library
    before = resident_mb("VmRSS")
    step = step_of(name, way)
    losses = [float(step()) for _ in range(min(WARM_STEPS, steps))]
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    losses += [float(step()) for _ in range(steps - len(losses))]
    return {"losses": losses, "peak_mb": resident_mb("VmHWM") - before}


def in_own_process(name: str, way: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), JOB, name, way, "--steps", str(args.steps)]
    command += ["--threads", str(args.threads), "--isa", args.isa]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@dataclass
class Row:
    way: str
    ready_s: float
    step: Callable[[], Any]
    losses: list[float]
    peak_mb: float


def start(name: str, args: argparse.Namespace, bar: tqdm[Any]) -> list[Row]:
    """Gets the ways ready; one that cannot run the model is told and left out."""
    rows = []
    for way in WAYS:
        bar.set_postfix_str(f"{name} {way}")
        if way not in args.skip:
            begin = time.perf_counter()
            try:
                step = step_of(name, way)
                step()
                step()
                ready = time.perf_counter() - begin
                alone = in_own_process(name, way, args)
                rows.append(Row(way, ready, step, alone["losses"], alone["peak_mb"]))
            except Exception as error:
                told = (str(error).splitlines() or [""])[0][:100]
                bar.write(f"{name:10} {way:20} left out: {type(error).__name__}: {told}")
        bar.update()
    return rows


def measure(name: str, args: argparse.Namespace, bar: tqdm[Any]) -> dict[str, Any]:
    import torch

    torch._dynamo.reset()
    rows = start(name, args, bar)
    bar.set_postfix_str(f"{name} in turns")
    times = in_turns({row.way: row.step for row in rows}, args.rounds, args.burst)
    peers = [row for row in rows if row.way in PEERS]
    ours = [row for row in rows if row.way in OURS]
    best = min((times[row.way] for row in peers), default=math.nan)
    least = min((row.peak_mb for row in peers), default=math.nan)
    reference = rows[0].losses
    figures: dict[str, Any] = {}
    for row in rows:
        seconds = times[row.way]
        error = max(abs(x - y) / abs(y) for x, y in zip(row.losses, reference, strict=True))
        figures[row.way] = {
            "ms": seconds * 1e3,
            "best_peer_over_this": best / seconds,
            "peak_mb": row.peak_mb,
            "peak_over_leanest_peer": row.peak_mb / least,
            "ready_s": row.ready_s,
            "loss": row.losses[-1],
            "loss_error": error,
        }
        bar.write(
            f"{name:10} {row.way:20} {seconds * 1e3:8.2f} ms   best peer / this {best / seconds:5.2f}   "
            f"peak {row.peak_mb:6.0f} MB, of the leanest peer's {row.peak_mb / least:5.2f}   "
            f"ready {row.ready_s:5.1f} s   loss {row.losses[-1]:.4f}, error {error:.0e}"
        )
    figures["ratio"] = best / min((times[row.way] for row in ours), default=math.nan)
    bar.update()
    return figures


def main() -> None:
    args = parse_arguments()
    prepare(args.threads, args.isa)
    warnings.filterwarnings("ignore")
    import torch
    import trainees

    torch.set_num_threads(args.threads)
    if args.job:
        print(json.dumps(job(*args.job, args.steps)))
        return
    names = args.models or list(trainees.TRAINEES)
    print(f"{machine()}, {args.threads} threads, fp32; losses after {args.steps} steps")
    with tqdm(total=len(names) * (len(WAYS) + 1), disable=not sys.stderr.isatty(), leave=False) as bar:
        report = {name: measure(name, args, bar) for name in names}
    ratios = [figures["ratio"] for figures in report.values()]
    mean = statistics.geometric_mean(ratios)
    told = ", ".join(f"{name} {figures['ratio']:.2f}" for name, figures in report.items())
    print(f"best peer / best of ours: {told}; geometric mean {mean:.2f}")
    if not args.models:
        training_memory.in_16_bits(seeds=3)
        training_memory.under_budgets(args.rounds, args.burst)
    keep(args, models=report, geometric_mean=mean)


if __name__ == "__main__":
    main()
