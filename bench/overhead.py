"""What a run costs beyond its kernels, in C++ and in Python, and that a million runs leave nothing behind.

    ./dev python bench/overhead.py [--runs 1000000]

Kernels here work on 16 elements. Exit status 1 when a gate is missed: 5 us a run in C++ (build/release/tests/
bench_overhead measures it), 1 MiB more resident memory over all runs of a door, and for torch.compile 3 us
and 50 ns for each tensor in or out beyond a backend that allocates the results and does nothing else.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from turns import burst, prepare

CPP = Path(__file__).resolve().parents[1] / "build" / "release" / "tests" / "bench_overhead"
MOST_GROWTH = 1 << 20
BATCH = 1000
MOST_US, MOST_US_A_TENSOR = 3, 0.05
TENSORS = (1, 8, 32)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def doors() -> Iterator[tuple[str, Callable[[], Any]]]:
    import deepseek as ds
    import numpy as np
    import torch

    for steps in (1, 8):
        graph = ds.Graph()
        y = graph.placeholder("x", shape=["N", 16], dtype="float32")
        for _ in range(steps):
            y = graph.softmax(y)
        graph.output("y", y)
        executable = ds.compile(graph)
        x = np.zeros((1, 16), "float32")
        kind = f"{steps} step{'s' if steps > 1 else ''}"
        feed = {"x": x}
        yield f"run(dict), {kind}", lambda run=executable.run, feed=feed: run(feed)
        yield f"executable(array), {kind}", lambda run=executable, x=x: run(x)

    @torch.compile(backend="deepseek")
    def softmax(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softmax(x, -1)

    tensor = torch.zeros(1, 16)
    eager = torch.nn.functional.softmax
    yield "torch.compile(backend='deepseek'), 1 step", lambda: softmax(tensor)
    yield "beside it: PyTorch eager, 1 step", lambda: eager(tensor, -1)


def allocating(module: Any, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """What is left of a call where nothing is computed: Dynamo, AOT Autograd and memory for the results."""
    from torch._dynamo.backends.common import aot_autograd

    def compiler(graph: Any, inputs: Sequence[Any]) -> Callable[[list[Any]], list[Any]]:
        from deepseek.torch.piece import empty

        values = [node.meta["val"] for node in graph.graph.output_node().args[0]]
        layouts = [(tuple(value.shape), value.stride(), value.dtype) for value in values]

        def run(inputs: list[Any]) -> list[Any]:
            inputs.clear()
            return [empty(*layout) for layout in layouts]

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    compiled: Callable[..., Any] = aot_autograd(fw_compiler=compiler)(module, example_inputs)
    return compiled


def over_dynamo() -> bool:
    """What a torch.compile call costs beyond `allocating`, by tensors that go in; as many come out."""
    import torch

    good = True
    for count in TENSORS:
        tensors = [torch.zeros(1, 16) for _ in range(count)]
        times = {}
        for backend in (allocating, "deepseek"):

            def plus_one(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return tuple(x + 1 for x in xs)

            torch._dynamo.reset()
            compiled = torch.compile(plus_one, backend=backend)

            def call(compiled: Callable[..., Any] = compiled, tensors: list[torch.Tensor] = tensors) -> None:
                compiled(*tensors)

            call()
            times[backend] = burst(functools.partial(repeat, call, BATCH), 2) / BATCH * 1e6
        floor, ours = times.values()
        most = MOST_US + MOST_US_A_TENSOR * 2 * count
        bad = ours - floor > most
        good = good and not bad
        print(
            f"{f'torch.compile over Dynamo, {count} in, {count} out':44} {ours - floor:10.3f} us = "
            f"{ours:.3f} - {floor:.3f}, {most:.1f} allowed{'   too much' if bad else ''}",
            flush=True,
        )
    return good


def repeat(call: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        call()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000)
    args = parser.parse_args()
    prepare(len(os.sched_getaffinity(0)), "native")
    print("C++", flush=True)
    failed = subprocess.run([CPP, str(args.runs)]).returncode != 0
    print("Python")
    import torch

    with torch.inference_mode():
        for name, call in doors():
            repeat(call, args.runs // 4)
            gc.collect()
            before = resident_bytes()
            repeat(call, args.runs)
            gc.collect()
            growth = resident_bytes() - before
            seconds = burst(lambda call=call: repeat(call, BATCH), 0.5) / BATCH
            bad = growth > MOST_GROWTH
            failed = failed or bad
            print(
                f"{name:44} {seconds * 1e6:10.3f} us, {growth / 1024:8.0f} KiB more after {args.runs} runs"
                f"{'   too much' if bad else ''}",
                flush=True,
            )
        failed = not over_dynamo() or failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
