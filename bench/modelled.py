"""Cycles of AArch64 kernels as llvm-mca's model of a Cortex-A72 has them: modelled, not measured.

    ./dev python bench/modelled.py                 the table; its share is of the model's own peak
    ./dev python bench/modelled.py --cpu cortex-a53 --show gemm       another core, and the loops themselves

Each kernel is compiled for NEON as a model's would be; of its innermost loops those that do arithmetic are
listed, by FLOPs. The model knows pipelines and latencies, not caches, and repeats a loop without leaving it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np

LANES = {"4s": 4, "2s": 2, "2d": 2, "8h": 8, "4h": 4}
ARITHMETIC = {"fmla": 2, "fmls": 2, "fmadd": 2, "fmsub": 2, "fnmadd": 2, "fnmsub": 2}
ARITHMETIC |= dict.fromkeys(("fadd", "fsub", "fmul", "fnmul", "fdiv", "fsqrt", "faddp", "mla"), 1)
LABEL = re.compile(r"^(\.L\w+):")
BRANCH = re.compile(r"^\s+(?:b\.\w+|cbn?z|tbn?z|b)\b.*?(\.L\w+)\s*$")


def zeros(*shape: int) -> Any:
    return np.zeros(shape, "float32")


def linear(g: ds.Graph, rows: int, columns: int, depth: int) -> Any:
    return g.matmul(g.placeholder("x", [rows, depth]), g.constant(zeros(depth, columns)))


def conv(g: ds.Graph, size: int, channels: int, out: int, kernel: int = 3, groups: int = 1) -> Any:
    x = g.placeholder("x", [1, channels, size, size])
    w = g.constant(np.ones((out, channels // groups, kernel, kernel), "float32"))
    pad = [kernel // 2] * 2
    return g.op("conv", [x, w], {"pad_low": pad, "pad_high": pad, "feature_groups": groups})


# Name, graph, ways that are left out.
KERNELS: list[tuple[str, Callable[[ds.Graph], Any], list[str]]] = [
    ("gemm 256x288x256", lambda g: linear(g, 256, 288, 256), []),
    ("gemm 32x384x384", lambda g: linear(g, 32, 384, 384), []),
    ("gemm 1x384x384", lambda g: linear(g, 1, 384, 384), []),
    ("conv 3x3 windows", lambda g: conv(g, 28, 64, 64), ["winograd"]),
    ("conv 3x3 winograd", lambda g: conv(g, 28, 64, 64), ["gemm", "gemm windows"]),
    ("depthwise 3x3", lambda g: conv(g, 28, 96, 96, 3, 96), []),
    ("softmax 384", lambda g: g.softmax(g.placeholder("x", [64, 384]), axis=-1), []),
    ("gelu", lambda g: g.gelu(g.placeholder("x", [64, 384])), []),
]


@dataclass
class Loop:
    kernel: str
    text: list[str]

    @property
    def flops(self) -> int:
        return sum(flops_of(line) for line in self.text)


def flops_of(line: str) -> int:
    words = line.split()
    if not words or words[0] not in ARITHMETIC:
        return 0
    lanes = re.search(r"v\d+\.(\w+)", line)
    return ARITHMETIC[words[0]] * (LANES.get(lanes[1], 1) if lanes else 1)


def innermost_loops(path: Path) -> list[Loop]:
    """Stretches from a label to the branch back to it, with no other such stretch inside."""
    kernel = re.sub(r"_\d+$", "", path.stem)
    lines = path.read_text().splitlines()
    at: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        if label := LABEL.match(line):
            at[label[1]] = i
        elif (branch := BRANCH.match(line)) and branch[1] in at:
            loops.append((at[branch[1]], i))
    inner = [(b, e) for b, e in loops if not any(b < other < e for other, _ in loops if other != b)]
    return [Loop(kernel, [x for x in lines[b + 1 : e + 1] if not LABEL.match(x)]) for b, e in inner]


def compiled_loops(build: Callable[[ds.Graph], Any], disabled: list[str]) -> list[Loop]:
    graph = ds.Graph()
    graph.output("y", build(graph))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DEEPSEEK_DUMP"] = folder
        ds.compile(graph, isa="neon", disable=disabled)
        del os.environ["DEEPSEEK_DUMP"]
        found = [loop for path in sorted(Path(folder).glob("*.s")) for loop in innermost_loops(path)]
    return sorted((loop for loop in found if loop.flops), key=lambda loop: -loop.flops)


def analyse(text: list[str], cpu: str, mca: str) -> tuple[float, str, float]:
    """Cycles per iteration, the busiest unit, and how busy it is."""
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", "--json", "-iterations=200", "-"]
    run = subprocess.run(command, input="\n".join(text), capture_output=True, text=True, check=True)
    report = json.loads(run.stdout)
    region = report["CodeRegions"][0]
    cycles = region["SummaryView"]["TotalCycles"] / region["SummaryView"]["Iterations"]
    units = report["TargetInfo"]["Resources"]
    usage = [0.0] * len(units)
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] == len(region["Instructions"]):
            usage[use["ResourceIndex"]] += use["ResourceUsage"]
    busiest = max(range(len(units)), key=lambda i: usage[i])
    return cycles, units[busiest].split(".")[0], usage[busiest] / cycles


def find_mca() -> str:
    for name in ["llvm-mca", *(f"llvm-mca-{version}" for version in (22, 21, 20, 19))]:
        if found := shutil.which(name):
            return found
    raise SystemExit("llvm-mca is not installed (Debian: llvm-22)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", default="cortex-a72")
    parser.add_argument("--show", default=None, help="print the loops of kernels whose name has this in it")
    args = parser.parse_args()
    os.environ["DEEPSEEK_CACHE"] = "off"
    mca = find_mca()
    independent = [f"\tfmla v{i}.4s, v30.4s, v31.4s" for i in range(28)]
    peak = sum(map(flops_of, independent)) / analyse(independent, args.cpu, mca)[0]
    print(
        f"MODELLED, not measured: llvm-mca's {args.cpu}; multiply-adds alone reach {peak:.2f} FLOPs per cycle"
    )
    columns = f"{'instr':>5} {'cycles':>7} {'FLOPs':>6} {'/cycle':>6} {'share':>5}"
    print(f"{'kernel':20} {'program':30} {columns}  busiest")
    for name, build, disabled in KERNELS:
        for loop in compiled_loops(build, disabled):
            cycles, unit, busy = analyse(loop.text, args.cpu, mca)
            rate = loop.flops / cycles
            print(
                f"{name:20} {loop.kernel[:30]:30} {len(loop.text):5} {cycles:7.1f} {loop.flops:6}"
                f" {rate:6.2f} {rate / peak:5.0%}  {unit} {busy:.0%}"
            )
            if args.show is not None and args.show in name:
                print("\n".join(loop.text))


if __name__ == "__main__":
    main()
