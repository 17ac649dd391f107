"""What ./dev test-aarch64 runs besides the conformance suite; models come from bench/zoo.py."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/conformance")]
