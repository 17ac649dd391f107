"""Runs executables for another machine through deepseek-run, which DEEPSEEK_RUNNER says how to start.

DEEPSEEK_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/deepseek-run" \
    pytest tests/conformance -k neon
"""

from __future__ import annotations

import atexit
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
from deepseek.arrays import numpy_dtype

RUNNER = shlex.split(os.environ.get("DEEPSEEK_RUNNER", ""))


class Server:
    """One `deepseek-run --serve`, started when it is needed; one that crashed is started again."""

    def __init__(self, side: str) -> None:
        self._environment = {**os.environ, "DEEPSEEK_GUARD": side}
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.stop)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, arguments: list[str]) -> None:
        if self._process is None:
            pipe = subprocess.PIPE
            command = [*RUNNER, "--serve"]
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, env=self._environment, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\t".join(arguments) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            status = self._process.wait()
            self._process = None
            raise AssertionError(f"deepseek-run ended with status {status}")
        if answer != "ok":
            raise AssertionError(answer)


@cache
def server(side: str) -> Server:
    return Server(side)


class Elsewhere:
    """An executable that another machine runs; used as ds.Executable is."""

    def __init__(self, compiled: ds.Executable, side: str) -> None:
        self.compiled = compiled
        self._side = side

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.compiled.save(folder / "model.dsx")
            arguments = [str(folder / "model.dsx"), "--out", str(folder)]
            for i, (key, value) in enumerate(feed.items()):
                dtype = numpy_dtype(self.compiled.inputs[key].dtype)
                np.save(folder / f"in{i}.npy", np.array(value, dtype=dtype, order="C"))
                arguments.append(f"{key}={folder / f'in{i}.npy'}")
            server(self._side).ask(arguments)
            results = {key: np.load(folder / f"{key.replace('/', '_')}.npy") for key in self.compiled.outputs}
        return {
            key: value.view(numpy_dtype(port.dtype)) if value.dtype.kind == "V" else value
            for (key, port), value in zip(self.compiled.outputs.items(), results.values(), strict=True)
        }
