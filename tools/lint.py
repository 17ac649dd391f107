"""Every check that needs no running: clang-format, clang-tidy, ruff, mypy and the house rules.

clang-tidy is slow, so its verdict on a file is kept (build/lint) until the file, a project header that it
reaches or the configuration changes.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "include", "python", "tests", "tools", "examples", "bench", "npu")
BUILD = ROOT / "build" / "release"
KEPT = ROOT / "build" / "lint"
MAX_LINES = 800
# Words that mark an unfinished part. Split here, so that this file does not name itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|not (yet )?implem" r"ented|for n" r"ow)\b")
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.M)


def files(*suffixes: str) -> list[Path]:
    found = [
        p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in suffixes and p.is_file()
    ]
    return sorted(found)


@cache
def tool(name: str) -> str:
    """The newest version of one of clang's tools."""
    for candidate in [f"{name}-{version}" for version in range(22, 18, -1)] + [name]:
        if shutil.which(candidate):
            return candidate
    raise SystemExit(f"{name} is not installed")


def call(command: list[str]) -> str:
    """Runs a check; what it prints when it finds something, nothing otherwise."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "" if done.returncode == 0 else (done.stdout.strip() or f"{command[0]} failed")


@cache
def headers(path: Path) -> frozenset[Path]:
    """The project's headers that a file reaches."""
    found: set[Path] = set()
    for name in INCLUDE.findall(path.read_bytes()):
        for base in (path.parent, ROOT / "include", ROOT / "src", ROOT / "tests"):
            header = base / name.decode()
            if header.is_file():
                found |= {header} | headers(header)
                break
    return frozenset(found)


def fingerprint(path: Path) -> str:
    digest = hashlib.sha256(tool("clang-tidy").encode())
    for part in [ROOT / ".clang-tidy", path, *sorted(headers(path))]:
        digest.update(part.read_bytes())
    return digest.hexdigest()[:32]


def tidy(path: Path) -> str:
    kept = KEPT / fingerprint(path)
    if kept.exists():
        return ""
    command = [tool("clang-tidy"), "--quiet", "-p", str(BUILD), str(path)]
    found = call(command)
    if not found:
        kept.touch()
    return found


def house_rules(path: Path) -> str:
    text = path.read_text()
    lines = text.count("\n")
    problems = (
        [f"{path.relative_to(ROOT)}: {lines} lines, {MAX_LINES} are the limit"] if lines > MAX_LINES else []
    )
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line):
            problems.append(f"{path.relative_to(ROOT)}:{number}: marks something unfinished: {line.strip()}")
    return "\n".join(problems)


def each(kind: str, check: Callable[[Path], str], paths: Iterable[Path]) -> list[tuple[str, str]]:
    paths = list(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            (f"{kind} {path.relative_to(ROOT)}", found)
            for path, found in zip(paths, pool.map(check, paths), strict=True)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="repair formatting first")
    parser.add_argument("--junit", type=Path, help="write the results here")
    parser.add_argument("--no-tidy", action="store_true", help="leave clang-tidy out")
    args = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    cpp = [str(p) for p in files(".cc", ".h")]
    python = ["python/deepseek", "tests", "tools", "examples", "bench"]
    python = [folder for folder in python if any((ROOT / folder).rglob("*.py"))]
    ruff, mypy = str(Path(sys.executable).parent / "ruff"), [sys.executable, "-m", "mypy"]
    if args.fix:
        call([tool("clang-format"), "-i", *cpp])
        call([ruff, "check", "-q", "--fix", *python])
        call([ruff, "format", "-q", *python])

    compiled = (BUILD / "compile_commands.json").read_text()
    results = [("clang-format", call([tool("clang-format"), "--dry-run", "-Werror", *cpp]))]
    results += [("ruff check", call([ruff, "check", "-q", *python]))]
    results += [("ruff format", call([ruff, "format", "-q", "--diff", *python]))]
    results += [("mypy", call([*mypy, "--no-error-summary"]))]
    results += each("house rules", house_rules, files(".cc", ".h", ".py"))
    if not args.no_tidy:
        results += each("clang-tidy", tidy, [p for p in files(".cc") if f'"{p}"' in compiled])

    failed = [(name, found) for name, found in results if found]
    for name, found in failed:
        print(f"-- {name}\n{found}")
    print(f"lint: {len(results) - len(failed)} checks passed, {len(failed)} failed")
    if args.junit:
        cases = "".join(
            f'<testcase classname="lint" name={quoteattr(name)}>'
            + (f"<failure>{escape(found)}</failure>" if found else "")
            + "</testcase>"
            for name, found in results
        )
        args.junit.write_text(f"<testsuite>{cases}</testsuite>")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
