"""What starting costs: importing, compiling in a fresh process (cold, from the kernel cache), memory.

    ./dev bench-startup [--models resnet50 ...] [--threads 2] [--repeats 10]

Every figure is of a fresh process, the model's file in the page cache. Of compiling, medians and the worst
of all repeats. Memory: what is resident after ten runs less what was after importing, of memory proper and of
files' pages each (which count as nothing where there are fewer than before: ours gives the compiler's code
back), beside ONNX Runtime, OpenVINO and PyTorch eager (with the model, which in its case no file holds).
`reading` is what nobody gets round: the model's file read into memory, and as much of that touched as the
model holds in the end, which a virtual machine may be slow to give; `beyond` is what compiling from the cache
takes more, the two in turns.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import machine, prepare

WORKER = Path(__file__)
ROW = "{:16} {:>12} {:>12} {:>12} {:>12} {:>10} {:>6} {:>6} {:>6} {:>8} {:>6} {:>8}"
IMPORTS = {"numpy": "import numpy", "deepseek": "import numpy, deepseek"}


def fresh(*arguments: str, **environment: str) -> Any:
    """What this file prints as JSON when a process of its own does one job."""
    command = [sys.executable, str(WORKER), "--job", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def import_ms(statement: str) -> float:
    code = f"import time; t = time.perf_counter()\n{statement}\nprint(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) * 1e3


def resident_mb() -> tuple[float, float]:
    """Memory of the process's own, and pages of files."""
    with open("/proc/self/statm") as file:
        fields = file.read().split()
    resident, shared = (int(field) * os.sysconf("SC_PAGESIZE") / 1e6 for field in fields[1:3])
    return resident - shared, shared


def grown_mb(before: tuple[float, float]) -> float:
    return sum(max(0.0, after - was) for after, was in zip(resident_mb(), before, strict=True))


# --- jobs: each runs in a process of its own ---------------------------------------------------------------
def job_compile(path: str, threads: str, tune: str) -> dict[str, float]:
    import deepseek as ds

    begin = time.perf_counter()
    ds.compile(path, threads=int(threads), tune=tune)
    return {"ms": (time.perf_counter() - begin) * 1e3}


def job_read(path: str, megabytes: str) -> dict[str, float]:
    begin = time.perf_counter()
    with mmap.mmap(-1, max(int(float(megabytes) * 1e6), Path(path).stat().st_size)) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        with memoryview(memory) as view, open(path, "rb", buffering=0) as file:
            read = file.readinto(view) or 0
        for at in range(read, len(memory), mmap.PAGESIZE):
            memory[at] = 1
    return {"ms": (time.perf_counter() - begin) * 1e3}


def job_deepseek(path: str, threads: str) -> dict[str, float]:
    import deepseek as ds
    import numpy as np

    before = resident_mb()
    executable = ds.compile(path, threads=int(threads))
    feed = {name: np.ones(port.shape, port.dtype) for name, port in executable.inputs.items()}
    for _ in range(10):
        executable.run(feed)
    return {"mb": grown_mb(before)}


def job_onnxruntime(path: str, threads: str) -> dict[str, float]:
    import numpy as np
    import onnxruntime

    before = resident_mb()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    feed = {port.name: np.ones(port.shape, types[port.type]) for port in session.get_inputs()}
    for _ in range(10):
        session.run(None, feed)
    return {"mb": grown_mb(before)}


def job_openvino(path: str, threads: str) -> dict[str, float]:
    import numpy as np
    import openvino

    core = openvino.Core()
    before = resident_mb()
    settings = {"INFERENCE_NUM_THREADS": int(threads), "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(path, "CPU", settings).create_infer_request()
    inputs = request.model_inputs
    feed = {port.any_name: np.ones(tuple(port.shape), port.element_type.to_dtype()) for port in inputs}
    for _ in range(10):
        request.infer(feed)
    return {"mb": grown_mb(before)}


def job_eager(name: str, threads: str) -> dict[str, float]:
    import torch
    import zoo

    zoo.torchvision(), zoo.transformers()
    torch.set_num_threads(int(threads))
    before = resident_mb()
    model, inputs = zoo.BENCH[name].make()
    with torch.inference_mode():
        for _ in range(10):
            model(*inputs)
    return {"mb": grown_mb(before)}


JOBS = {
    "compile": job_compile,
    "read": job_read,
    "deepseek": job_deepseek,
    "onnxruntime": job_onnxruntime,
    "openvino": job_openvino,
    "eager": job_eager,
}


# --- the report --------------------------------------------------------------------------------------
def summary(times: list[float]) -> str:
    return f"{statistics.median(times):.0f} ({max(times):.0f})"


def imports(repeats: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, statement in IMPORTS.items():
            times[name].append(import_ms(statement))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    loaded = "import sys, deepseek; print('torch' in sys.modules)"
    torch = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout.strip()
    print(
        f"import numpy {medians['numpy']:.1f} ms; with deepseek {medians['deepseek']:.1f} ms, "
        f"{medians['deepseek'] - medians['numpy']:.1f} ms more (medians of {repeats}); "
        f"torch imported: {torch}"
    )


def export(name: str, folder: str) -> str:
    import torch
    import zoo

    path = os.path.join(folder, f"{name}.onnx")
    with torch.inference_mode():
        zoo.export_onnx(*zoo.BENCH[name].make(), path)
    return path


def model(name: str, path: str, threads: str, repeats: int) -> None:
    cold: dict[str, list[float]] = {"off": [], "fast": []}
    for tune, times in cold.items():
        for _ in range(max(3, repeats // 3)):
            with tempfile.TemporaryDirectory() as cache:
                times.append(fresh("compile", path, threads, tune, DEEPSEEK_CACHE_DIR=cache)["ms"])
    with tempfile.TemporaryDirectory() as cache:
        ours_cold = fresh("deepseek", path, threads, DEEPSEEK_CACHE_DIR=cache)["mb"]
        ours = fresh("deepseek", path, threads, DEEPSEEK_CACHE_DIR=cache)["mb"]
        again, read = [], []
        for _ in range(repeats):
            again.append(fresh("compile", path, threads, "fast", DEEPSEEK_CACHE_DIR=cache)["ms"])
            read.append(fresh("read", path, str(ours))["ms"])
    peers = [fresh("onnxruntime", path, threads)["mb"], fresh("openvino", path, threads)["mb"]]
    peers.append(fresh("eager", name, threads)["mb"])
    beyond = [compiled - needed for compiled, needed in zip(again, read, strict=True)]
    figures = [summary(taken) for taken in (cold["off"], cold["fast"], again, read, beyond)]
    memory = [f"{mb:.0f}" for mb in (ours_cold, ours, *peers)]
    print(ROW.format(name, *figures, *memory, f"{max(ours, ours_cold) / min(peers):.2f}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="*", help="names in bench/zoo.py; default: all")
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    if args.job:
        job: Callable[..., dict[str, float]] = JOBS[args.job[0]]
        print(json.dumps(job(*args.job[1:])))
        return
    prepare(int(args.threads), "native")
    print(f"{machine()}, {args.threads} threads")
    imports(2 * args.repeats)
    print("Compiling, ms, median (worst); resident memory, MB")
    print(
        ROW.format(
            "",
            "tune=off",
            "tune=fast",
            "from cache",
            "reading",
            "beyond",
            "cold",
            "cached",
            "ORT",
            "OpenVINO",
            "eager",
            "leanest",
        )
    )
    warnings.filterwarnings("ignore")
    import zoo

    with tempfile.TemporaryDirectory() as folder:
        for name in args.models or zoo.BENCH:
            model(name, export(name, folder), args.threads, args.repeats)


if __name__ == "__main__":
    main()
