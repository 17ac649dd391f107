"""Writes ONNX's node tests to a folder: NAME/model.onnx and NAME/data.pickle (inputs, outputs, tolerances).

Run as a program of its own, because collecting the cases imports onnx.reference, which the tests' process
must not have.
"""

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Arrays, lists of them, or None: what a user would feed."""
    import onnx
    from onnx import numpy_helper

    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    import onnx
    from onnx.backend.test import loader

    for case in loader.load_model_tests(kind="node"):
        assert case.model is not None  # node tests carry both
        assert case.data_sets is not None
        target = folder / case.name
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.onnx").write_bytes(case.model.SerializeToString())
        initialised = {t.name for t in case.model.graph.initializer}
        data = {
            "inputs": [i.name for i in case.model.graph.input if i.name not in initialised],
            "sets": [(plain(inputs), plain(outputs)) for inputs, outputs in case.data_sets],
            "rtol": case.rtol,
            "atol": case.atol,
        }
        (target / "data.pickle").write_bytes(pickle.dumps(data))
    (folder / "complete").write_text(onnx.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
