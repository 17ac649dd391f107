"""What a kernel that leaves its buffer would meet in this suite."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

READ = """
import ctypes
import deepseek as ds
import numpy as np
from deepseek._core import set_guard

set_guard("{side}")
g = ds.Graph()
g.output("y", g.exp(g.placeholder("x", [1003], "float32")))
y = ds.compile(g).run({{"x": np.zeros(1003, "float32")}})["y"]
print(ctypes.string_at(y.ctypes.data + {offset}, 4) == y[:1].tobytes())
"""


@pytest.mark.parametrize(
    ("side", "inside", "outside"), [("end", 1002 * 4, 1003 * 4), ("begin", 0, -4)], ids=["end", "begin"]
)
def test_reading_beside_a_result_faults(side: str, inside: int, outside: int) -> None:
    def read(offset: int) -> subprocess.CompletedProcess[str]:
        code = READ.format(side=side, offset=offset)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert read(inside).stdout == "True\n"
    assert read(outside).returncode == -signal.SIGSEGV
