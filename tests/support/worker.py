"""A Python script run in a process of its own, which reads a line and answers with lines of JSON."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """Starts with the first line it is sent, and again after `kill`.

    `read` raises BrokenPipeError when the process has ended and TimeoutError when `seconds` have passed.
    """

    def __init__(self, script: Path, seconds: float) -> None:
        self.script, self.seconds = script, seconds
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, str(self.script)],
            bufsize=0,  # a line in a buffer here would be one that select() does not see
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )

    def send(self, line: str) -> None:
        self.process = self.process or self._start()
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def read(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(self.seconds):
                raise TimeoutError(f"no result within {self.seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise BrokenPipeError(f"the process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """Lets the script come to its end."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()
