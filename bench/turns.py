"""What the benchmarks share: engines capped at one instruction set, taking turns, the file of figures."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "DEEPSEEK_CPU_ISA": "avx2",
}
WIDEST = (("amx_tile", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))


def prepare(threads: int, isa: str) -> None:
    """Sets the environment; before any engine is loaded."""
    if isa == "avx2":
        os.environ.update(AVX2)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def machine() -> str:
    """The processor as the kernel names it, with the widest vectors that it has."""
    with open("/proc/cpuinfo") as file:
        fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    about = {key.strip(): value.strip() for key, value in fields.items()}
    flags = about.get("flags", "").split()
    vectors = next((name for flag, name in WIDEST if flag in flags), "")
    return f"{about.get('model name', 'unknown processor')} (family {about.get('cpu family')}, {vectors})"


def burst(run: Callable[[], Any], seconds: float) -> float:
    """The fastest of the runs that fit into so many seconds; of two at least: the first makes room."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        run()
        stop = time.perf_counter()
        times.append(stop - begin)
        if stop >= end and len(times) > 1:
            return min(times)


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, float]:
    """The median over rounds of each one's fastest run in its burst."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(burst(run, seconds))
    return {name: statistics.median(taken) for name, taken in times.items()}


def keep(args: argparse.Namespace, **figures: Any) -> None:
    """Writes the figures where `--json` says, if it says, with the machine and how it was used."""
    if args.json:
        about = {"machine": machine(), "threads": args.threads, "isa": args.isa}
        Path(args.json).write_text(json.dumps(about | figures, indent=1) + "\n")
