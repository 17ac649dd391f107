"""Runs one libFuzzer program for a while and leaves a JUnit result; ./dev test-all does so for each."""

import argparse
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("program", type=Path)
    parser.add_argument("corpus", type=Path)
    args = parser.parse_args()
    found = args.corpus.parent / f"{args.program.name}-findings"
    found.mkdir(parents=True, exist_ok=True)
    command = [
        str(args.program), f"-max_total_time={args.seconds}", "-timeout=20", "-rss_limit_mb=4096",
        "-print_final_stats=1", f"-artifact_prefix={found}/", str(args.corpus),
    ]  # fmt: skip
    run = subprocess.run(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
    )
    tail = "\n".join(run.stderr.splitlines()[-40:])
    print(tail if run.returncode else "\n".join(run.stderr.splitlines()[-6:]))
    failure = f'<failure message="finding">{escape(tail)}</failure>' if run.returncode else ""
    name = args.program.name
    args.junit.write_text(
        f'<testsuite><testcase classname="fuzz" name="{name}">{failure}</testcase></testsuite>'
    )
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
