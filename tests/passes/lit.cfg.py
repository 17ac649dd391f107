"""Tests of passes: graph text in, graph text out. One by hand: `.venv/bin/lit -v tests/passes/x.ds`."""

import shutil
from pathlib import Path

import lit.formats

root = Path(__file__).resolve().parents[2]
file_check = next(
    path for version in (22, 21, 20, 19) if (path := shutil.which(f"FileCheck-{version}")) is not None
)

config.name = "passes"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".ds"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(root / "build" / "passes")
config.substitutions.append(("%opt", str(root / "build" / "release" / "deepseek-opt")))
config.substitutions.append(("%check", f"{file_check} %s"))
