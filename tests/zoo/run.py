"""Lists of models through `torch.compile(model, backend="deepseek")`, and the rates of those that are right.

    ./dev python tests/zoo/run.py transformers|timm [NAME ...] [--seconds 300] [--jobs 1] [--json FILE]

A worker is forked for each model, so that a crash or a time-out costs one model. Its --seconds are of the
processor, so that a busy machine condemns none; by the clock it gets PATIENCE times as many, in case it waits
forever. Exit status 1 when a model is not right (PyTorch's own tracing aside) or, with --ours, when less than
that share leaves nothing to PyTorch.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

PATIENCE = 10

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "bench")]

import torch  # noqa: E402
from check import Verdict, check  # noqa: E402


def models_of(library: str) -> dict[str, Any]:
    if library == "timm":
        from timm_models import MODELS
    else:
        from transformers_models import MODELS
    return {model.name: model for model in MODELS}


def _warm() -> None:
    """What every worker would import again. Nothing of ours runs here: threads do not survive a fork."""
    compiled = torch.compile(torch.nn.Linear(2, 2), backend="aot_eager_decomp_partition")
    compiled(torch.ones(1, 2)).sum().backward()
    torch._dynamo.reset()
    gc.freeze()  # what all workers share none of them walks


def _work(model: Any, pipe: int) -> None:
    """The worker: writes its verdict and ends without Python's own leave-taking."""
    torch.set_num_threads(1)
    if not os.environ.get("ZOO_STDERR"):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    try:
        verdict = check(model.name, model.build)
    except Exception as error:
        verdict = Verdict(model.name, "error", "eager: " + "".join(traceback.format_exception(error)))
    with os.fdopen(pipe, "w") as file:
        json.dump(asdict(verdict), file)
    os._exit(0)


class Worker:
    """A model being checked in a process of its own."""

    def __init__(self, model: Any, seconds: float) -> None:
        self.model, self.deadline, self.text = model, time.monotonic() + PATIENCE * seconds, b""
        self.pipe, write = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.pipe)
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), resource.RLIM_INFINITY))
            _work(model, write)
        os.close(write)

    def read(self) -> bool:
        """Takes what has come; whether that was all."""
        chunk = os.read(self.pipe, 1 << 16)
        self.text += chunk
        return not chunk

    def finish(self) -> Verdict:
        late = time.monotonic() > self.deadline
        if late:
            os.kill(self.process, signal.SIGKILL)
        os.close(self.pipe)
        _, status = os.waitpid(self.process, 0)
        if self.text and status == 0:
            return Verdict(**json.loads(self.text))
        late = late or os.WTERMSIG(status) == signal.SIGXCPU
        return Verdict(self.model.name, "time-out" if late else "error", f"wait status {status}")


def run(models: Sequence[Any], seconds: float, jobs: int, told: Callable[[Verdict], None]) -> list[Verdict]:
    waiting, running, verdicts = list(models), list[Worker](), list[Verdict]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Worker(waiting.pop(0), seconds))
        ready, _, _ = select.select([worker.pipe for worker in running], [], [], 0.5)
        for worker in list(running):
            if (worker.pipe in ready and worker.read()) or time.monotonic() > worker.deadline:
                running.remove(worker)
                verdicts.append(worker.finish())
                told(verdicts[-1])
    return verdicts


def line(v: Verdict) -> str:
    left = ", ".join(f"{count} x {op}" for op, count in v.left.items()) or "all ours"
    text = f"{v.name:30} {v.state:8} {v.graphs:2} graphs, {v.breaks} breaks, {v.seconds:5.1f} s, {left}"
    reason = v.reason.strip().splitlines()
    return text + (f"\n    {' | '.join(reason[-3:])[:600]}" if reason else "")


def summary(verdicts: Sequence[Verdict]) -> str:
    states = Counter(v.state for v in verdicts)
    left = Counter(op for v in verdicts for op in v.left)
    lines = [
        f"{len(verdicts)} models: " + ", ".join(f"{n} {state}" for state, n in states.most_common()) + "; "
        f"{sum(v.ours for v in verdicts)} right and wholly ours; "
        f"{sum(v.seconds for v in verdicts):.0f} s of compiling and running"
    ]
    return "\n".join(lines + [f"  in PyTorch: {op} in {n} models" for op, n in left.most_common()])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=["transformers", "timm"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=300, help="of the processor, for a model")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("--ours", type=float, default=0.0)
    args = parser.parse_args()
    import deepseek.torch  # noqa: F401 - for the workers

    known = models_of(args.library)
    chosen = [known[name] for name in args.names] if args.names else list(known.values())
    _warm()
    verdicts = run(chosen, args.seconds, args.jobs, lambda verdict: print(line(verdict), flush=True))
    print(summary(verdicts))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    right = all(verdict.state in ("right", "dynamo") for verdict in verdicts)
    return 0 if right and sum(v.ours for v in verdicts) >= args.ours * len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
