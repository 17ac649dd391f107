"""Runs node tests: reads folders from stdin, one per line, and answers each with a line of JSON.

Only deepseek computes here: importing PyTorch, ONNX Runtime or ONNX's reference fails.
"""

import json
import pickle
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

FORBIDDEN = ("torch", "onnxruntime", "onnx.reference", "openvino", "tensorflow")


class Forbid(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(name == module or name.startswith(module + ".") for module in FORBIDDEN):
            raise ImportError(f"{name} may not be imported by the suite")
        return None


sys.meta_path.insert(0, Forbid())

import deepseek as ds  # noqa: E402
import numpy as np  # noqa: E402


def check(got: Any, expected: Any, rtol: float, atol: float) -> None:
    """ONNX's own comparison: shape and dtype equal, values within the tolerances."""
    if isinstance(expected, (list, tuple)):
        assert isinstance(got, (list, tuple)), f"expected a sequence, got {type(got).__name__}"
        assert len(got) == len(expected), f"expected {len(expected)} elements, got {len(got)}"
        for g, e in zip(got, expected, strict=True):
            check(g, e, rtol, atol)
        return
    if expected is None:
        assert got is None, f"expected nothing, got {type(got).__name__}"
        return
    expected = np.asarray(expected)
    got = np.asarray(got)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    if expected.dtype == object or expected.dtype.kind in "SU":
        np.testing.assert_array_equal(got, expected)
        return
    if expected.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)  # two units in the last place, as ONNX's runner has it
        got, expected = got.astype(np.float32), expected.astype(np.float32)
    elif expected.dtype.kind == "V" or expected.dtype.name.startswith(
        ("float8", "float4", "int4", "uint4", "int2", "uint2")
    ):
        got, expected = got.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def run(folder: Path) -> None:
    data = pickle.loads((folder / "data.pickle").read_bytes())
    compiled = ds.compile(folder / "model.onnx")
    for inputs, outputs in data["sets"]:
        results = compiled.run(dict(zip(data["inputs"], inputs, strict=True)))
        check(list(results.values()), outputs, data["rtol"], data["atol"])


def main() -> None:
    for line in sys.stdin:
        folder = Path(line.strip())
        start = time.perf_counter()
        try:
            run(folder)
            status, message = "pass", ""
        except ds.Error as error:
            status, message = "error", str(error)
        except AssertionError as error:
            status, message = "wrong", " ".join(str(error).split())
        except Exception as error:  # whatever it is belongs to this test
            status, message = "exception", f"{type(error).__name__}: {error}"
        answer = {"status": status, "message": message[:600], "seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
