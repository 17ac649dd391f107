"""ONNX's node and model tests, run in worker processes: a crash is that test's result, not the suite's end.

python tests/onnx_suite/suite.py            every test; prints each failure, then the rate
python tests/onnx_suite/suite.py softmax    those with "softmax" in their names
python tests/onnx_suite/suite.py --known    rewrites the reasons in known_failures.txt
"""

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.worker import Worker  # noqa: E402

DATA = ROOT / "build" / "onnx-backend-tests"
KNOWN = HERE / "known_failures.txt"
TIMEOUT = 300.0  # seconds that one test may take
RATE_GATE = 0.97  # of node tests; ONNX Runtime 1.31 passes 71.4%, OpenVINO 2026.4 72.8%, fed by NumPy


@dataclass(frozen=True)
class Result:
    status: str  # pass, wrong, error, exception, crash, timeout
    message: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.status == "pass"


def names() -> list[str]:
    """Every test, from the cache in build/, which is made when it is not there."""
    if not (DATA / "complete").exists():
        subprocess.run([sys.executable, str(HERE / "generate.py"), str(DATA)], check=True)
    return sorted(p.name for p in DATA.iterdir() if p.is_dir())


def fixed_part(all_names: Sequence[str]) -> list[str]:
    """What ./dev test runs, the same each time: a third of them, a tenth of versions, no large models."""
    small = [name for name in all_names if not name.startswith(("real-", "version-"))]
    return small[::3] + [name for name in all_names if name.startswith("version-")][::10]


def known_failures() -> dict[str, str]:
    """Name and reason of the tests that are known to fail."""
    known = {}
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            known[name] = reason.strip()
    return known


def run_test(worker: Worker, name: str) -> Result:
    try:
        worker.send(str(DATA / name))
        return Result(**worker.read())
    except (BrokenPipeError, TimeoutError) as error:
        worker.kill()
        return Result("timeout" if isinstance(error, TimeoutError) else "crash", str(error))


def run_all(
    chosen: Sequence[str], report: Callable[[str, Result], None] = lambda name, result: None
) -> dict[str, Result]:
    """Runs the tests on all processors."""
    queue: SimpleQueue[str] = SimpleQueue()
    for name in chosen:
        queue.put(name)
    results: dict[str, Result] = {}

    def work() -> None:
        worker = Worker(HERE / "worker.py", TIMEOUT)
        while True:
            try:
                name = queue.get_nowait()
            except Empty:
                break
            results[name] = run_test(worker, name)
            report(name, results[name])
        worker.close()

    count = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()
    return results


def node_tests(results: dict[str, Result]) -> dict[str, Result]:
    return {name: result for name, result in results.items() if name.startswith("test_")}


def summary(results: dict[str, Result]) -> str:
    nodes = node_tests(results)
    versions = {name: result for name, result in results.items() if name.startswith("version-")}
    models = {name: result for name, result in results.items() if name not in nodes | versions}
    kinds = {"node": nodes, "model": models, "version": versions}
    return "\n".join(rate(kind, part) for kind, part in kinds.items() if part)


def rate(kind: str, results: dict[str, Result]) -> str:
    passed = sum(r.passed for r in results.values())
    counts = Counter(r.status for r in results.values())
    rest = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if status != "pass")
    share = f"{passed} of {len(results)} pass ({passed / len(results):.1%})"
    return f"ONNX {kind} tests: {share}; {rest or 'no failure'}"


def write_known(results: dict[str, Result]) -> None:
    old = known_failures()
    lines = [line for line in KNOWN.read_text().splitlines() if line.startswith("#")]
    for name in sorted(results):
        if not results[name].passed:
            lines.append(f"{name} {old.get(name) or results[name].message}")
    KNOWN.write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--known", action="store_true", help="write what fails to known_failures.txt")
    args = parser.parse_args()
    chosen = [name for name in names() if args.pattern in name]

    def report(name: str, result: Result) -> None:
        if not result.passed:
            print(f"{name}: {result.status}: {result.message}", flush=True)

    results = run_all(chosen, report)
    print(summary(results))
    if args.known:
        write_known(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
