"""Runs one libFuzzer program for a while and leaves a JUnit result; ./dev fuzz does so for each.

With `--lines FOLDER=PERCENT` it says how many of the lines of FOLDER ran and fails below that share; FOLDER's
objects are built with coverage mapping (see CMakeLists.txt).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape


def llvm_tool(name: str) -> str:
    for candidate in [*(f"{name}-{version}" for version in (22, 21, 20, 19)), name]:
        if path := shutil.which(candidate):
            return path
    raise SystemExit(f"fuzz.py: {name} is not installed")


def lines_run(program: Path, profile: Path, folder: str) -> tuple[int, int]:
    """Of the lines of `folder` that hold code: how many ran, and how many there are."""
    merged = profile.with_suffix(".profdata")
    merge = [llvm_tool("llvm-profdata"), "merge", "-sparse", str(profile), "-o", str(merged)]
    subprocess.run(merge, check=True)
    export = [llvm_tool("llvm-cov"), "export", "-summary-only", str(program)]
    export += [f"-instr-profile={merged}", folder]
    report = subprocess.run(export, check=True, capture_output=True, text=True)
    lines = json.loads(report.stdout)["data"][0]["totals"]["lines"]
    return lines["covered"], lines["count"]


def case(name: str, failure: str) -> str:
    inner = f'<failure message="finding">{escape(failure)}</failure>' if failure else ""
    return f'<testcase classname="fuzz" name="{escape(name)}">{inner}</testcase>'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("--lines", metavar="FOLDER=PERCENT")
    parser.add_argument("program", type=Path)
    parser.add_argument("corpus", type=Path)
    args = parser.parse_args()
    name = args.program.name
    found = args.corpus.parent / f"{name}-findings"
    found.mkdir(parents=True, exist_ok=True)
    profile = args.corpus.parent / f"{name}.profraw"
    profile.unlink(missing_ok=True)
    command = [
        str(args.program), f"-max_total_time={args.seconds}", "-timeout=20", "-rss_limit_mb=4096",
        "-print_final_stats=1", f"-artifact_prefix={found}/", str(args.corpus),
    ]  # fmt: skip
    # Memory that is not to be had is an error that the project reports, so the sanitizer leaves it alone.
    environment = os.environ | {
        "ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1",
        "LLVM_PROFILE_FILE": str(profile),
    }
    run = subprocess.run(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=environment,
    )
    tail = "\n".join(run.stderr.splitlines()[-40:])
    print(tail if run.returncode else "\n".join(run.stderr.splitlines()[-6:]))
    cases = [case(name, tail if run.returncode else "")]
    failed = run.returncode != 0
    if args.lines and not failed:
        folder, wanted = args.lines.split("=")
        ran, total = lines_run(args.program, profile, folder)
        print(f"{folder}: {ran} of {total} lines ran, {100 * ran / total:.1f}%")
        few = ran * 100 < total * float(wanted)
        failed = failed or few
        cases.append(case(f"lines of {folder}", f"{ran} of {total} lines: below {wanted}%" if few else ""))
    args.junit.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
