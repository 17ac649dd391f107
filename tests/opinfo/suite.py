"""PyTorch's operator database (op_db), and its module database (module_db), through torch.compile with our
backend: forward, and backward.

python tests/opinfo/suite.py                    every sample of every op in every dtype below (hours)
python tests/opinfo/suite.py --each 3           three samples of each op, spread over its list
python tests/opinfo/suite.py --dtypes float32 --ops linalg.qr,sort --verbose
python tests/opinfo/suite.py --gradcheck        gradients against finite differences, in float64
python tests/opinfo/suite.py --modules          every input of every module, without gradients and with them

Samples run in worker processes: a crash or a hang is that sample's result. What is counted: samples whose
results agree and whose every ATen op ran in our pieces (those with random draws, which PyTorch's generator
makes, do not count, nor does what Dynamo cannot trace in one graph). A rate over all samples weighs an op's
chosen samples by how many it has; the rate over ops is the mean of the ops' own rates.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.worker import Worker  # noqa: E402

MODULE_KINDS = ("inference", "training", "evaluation")
KINDS = ("forward", "gradient", "gradcheck", *MODULE_KINDS)
DTYPES = ("float32", "float64", "bfloat16", "int64", "int32", "bool")
TIMEOUT = 300.0  # seconds that one sample, or making an op's samples, may take


@dataclass(frozen=True)
class Task:
    op: int  # in op_db, or in module_db
    name: str
    dtype: str
    kind: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.kind}"

    @property
    def script(self) -> str:
        return "module_worker.py" if self.kind in MODULE_KINDS else "worker.py"


@dataclass
class Outcome:
    """What became of one task's samples."""

    task: Task
    total: int = 0
    results: list[tuple[str, str]] = field(default_factory=list)  # status, message

    @property
    def counted(self) -> list[str]:
        return [status for status, _ in self.results if status != "left"]

    @property
    def weight(self) -> float:
        """How many of the op's samples one result stands for."""
        return self.total / len(self.results) if self.results else 0.0


def tasks(dtypes: Sequence[str] = DTYPES, names: Sequence[str] = ()) -> list[Task]:
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    chosen = []
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        for i, op in enumerate(op_db):
            if kind not in op.dtypes or (names and not {op.name, op.formatted_name} & set(names)):
                continue
            chosen.append(Task(i, op.formatted_name, dtype, "forward"))
            if kind.is_floating_point and op.supports_autograd and kind in op.backward_dtypes:
                chosen.append(Task(i, op.formatted_name, dtype, "gradient"))
    return chosen


def gradchecks(names: Sequence[str] = ()) -> list[Task]:
    """torch.autograd.gradcheck through the compiled function."""
    have = tasks(["float64"], names)
    return [replace(task, kind="gradcheck") for task in have if task.kind == "gradient"]


def modules(names: Sequence[str] = ()) -> list[Task]:
    """Each module in each of its dtypes and modes."""
    from torch.testing._internal.common_modules import module_db

    return [
        Task(i, info.name, str(dtype).removeprefix("torch."), kind)
        for i, info in enumerate(module_db)
        if not names or info.name in names
        for dtype in info.dtypes
        for kind in MODULE_KINDS
        if kind != "evaluation" or info.train_and_eval_differ
    ]


def fixed_part(chosen: Sequence[Task], step: int = 80) -> list[Task]:
    """What ./dev test runs: every step-th task, the same ones each time."""
    return list(chosen[::step])


def run_task(worker: Worker, task: Task, each: int) -> Outcome:
    outcome = Outcome(task)
    while True:
        try:
            ask(worker, task, each, outcome)
            return outcome
        except (BrokenPipeError, TimeoutError) as error:
            worker.kill()
            status = "timeout" if isinstance(error, TimeoutError) else "crash"
            outcome.results.append((status, str(error)))
            if outcome.total == 0:  # not even its samples
                outcome.total = 1
                return outcome


def ask(worker: Worker, task: Task, each: int, outcome: Outcome) -> None:
    """Adds the results of the samples that `outcome` does not have yet."""
    order = {"op": task.op, "dtype": task.dtype, "kind": task.kind, "each": each}
    worker.send(json.dumps(order | {"skip": len(outcome.results)}))
    head = worker.read()
    outcome.total = head["total"]
    while len(outcome.results) < head["chosen"]:
        result = worker.read()
        outcome.results.append((result["status"], result["message"]))


def run_all(
    chosen: Sequence[Task],
    each: int = 0,
    workers: int = 0,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs the tasks, `each` samples of an op at most (0: all), on all processors."""
    queue: SimpleQueue[Task] = SimpleQueue()
    for task in chosen:
        queue.put(task)
    outcomes: list[Outcome] = []

    def work() -> None:
        processes: dict[str, Worker] = {}
        while True:
            try:
                task = queue.get_nowait()
            except Empty:
                break
            if task.script not in processes:
                processes[task.script] = Worker(HERE / task.script, TIMEOUT)
            outcomes.append(run_task(processes[task.script], task, each))
            report(outcomes[-1])
        for worker in processes.values():
            worker.close()

    count = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()
    return outcomes


def weights(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """How many samples are compiled whole, and how many there are."""
    ours = sum(o.weight * o.counted.count("compiled") for o in outcomes)
    return ours, sum(o.weight * len(o.counted) for o in outcomes)


def share(outcomes: Sequence[Outcome]) -> float:
    ours, total = weights(outcomes)
    return ours / max(total, 1)


def mean(outcomes: Sequence[Outcome]) -> float:
    """As `share`, but each op counts the same."""
    rates = [o.counted.count("compiled") / len(o.counted) for o in outcomes if o.counted]
    return sum(rates) / max(len(rates), 1)


def rate(outcomes: Sequence[Outcome]) -> str:
    """One line: over all samples, over ops, and what else there was."""
    run = Counter(status for o in outcomes for status in o.counted)
    left = sum(len(o.results) - len(o.counted) for o in outcomes)
    ours, total = weights(outcomes)
    ops = sum(bool(o.counted) for o in outcomes)
    rest = ", ".join(f"{n} {status}" for status, n in sorted(run.items()) if status != "compiled")
    return (
        f"compiled whole {ours:.0f} of {total:.0f} samples ({ours / max(total, 1):.1%}), mean over "
        f"{ops} ops {mean(outcomes):.1%}; run {run.total()}: "
        f"{run['compiled']} compiled, {rest or 'nothing else'}; {left} left out (nothing to compare)"
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    lines = []
    for kind in KINDS:
        for dtype in DTYPES:
            some = [o for o in outcomes if o.task.dtype == dtype and o.task.kind == kind]
            if some:
                lines.append(f"{kind} {dtype}: {rate(some)}")
        some = [o for o in outcomes if o.task.kind == kind]
        if len({o.task.dtype for o in some}) > 1:
            lines.append(f"{kind}, all dtypes: {rate(some)}")
    return "\n".join(lines)


def missing(outcomes: Sequence[Outcome]) -> str:
    """Reasons by the samples that they cost."""
    cost: dict[str, float] = defaultdict(float)
    ops: dict[str, set[str]] = defaultdict(set)
    for outcome in outcomes:
        for status, message in outcome.results:
            if status == "partly":
                for reason in message.split(", aten."):
                    key = reason.removeprefix("aten.")[:90]
                    cost[key] += outcome.weight
                    ops[key].add(outcome.task.name)
    ranked = sorted(cost, key=lambda key: -cost[key])
    return "\n".join(f"{cost[key]:6.0f} {key}: {' '.join(sorted(ops[key])[:5])}" for key in ranked)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=0, help="samples of an op at most; 0: all")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--ops", default="", help="names, with commas between")
    parser.add_argument("--gradcheck", action="store_true", help="check gradients by finite differences")
    parser.add_argument("--modules", action="store_true", help="the module database; --ops names modules")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th task from the i-th")
    parser.add_argument("--missing", action="store_true", help="rank what PyTorch ran by samples lost")
    parser.add_argument("--verbose", action="store_true", help="print what PyTorch ran, too")
    args = parser.parse_args()
    names = [name for name in args.ops.split(",") if name]
    if args.modules:
        chosen = modules(names)
    else:
        chosen = gradchecks(names) if args.gradcheck else tasks(args.dtypes.split(","), names)
    first, step = (int(part) for part in args.shard.split("/"))

    def report(outcome: Outcome) -> None:
        quiet = ("compiled", "left") if args.verbose else ("compiled", "left", "partly", "drawn")
        for i, (status, message) in enumerate(outcome.results):
            if status not in quiet:
                print(f"{outcome.task} {i}: {status}: {message}", flush=True)

    with tempfile.TemporaryDirectory() as folder:  # compiled samples of a suite are of no use to others
        os.environ["DEEPSEEK_CACHE_DIR"] = folder
        outcomes = run_all(chosen[first::step], args.each, args.workers, report)
    if args.missing:
        print(missing(outcomes))
    print(summary(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
