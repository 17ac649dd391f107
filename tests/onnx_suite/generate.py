"""Writes ONNX's tests to a folder: NAME/model.onnx and NAME/data.pickle (inputs, outputs, tolerances).

Node tests, of one operator each, keep their names; those of the models that the onnx package carries get
that of their kind in front: "real-test_vgg19". Those at other versions of an operator (versions.py) begin
with "version-".

Run as a program of its own, because collecting the cases imports onnx.reference, which the tests' process
must not have.
"""

import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def plain(value: Any) -> Any:
    """Arrays, lists of them, or None: what a user would feed."""
    import onnx
    from onnx import numpy_helper

    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def write(target: Path, model: Any, sets: list[tuple[Any, Any]], rtol: float, atol: float) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.onnx").write_bytes(model.SerializeToString())
    initialised = {t.name for t in model.graph.initializer}
    data = {
        "inputs": [i.name for i in model.graph.input if i.name not in initialised],
        "sets": sets,
        "rtol": rtol,
        "atol": atol,
    }
    (target / "data.pickle").write_bytes(pickle.dumps(data))


def stored(folder: Path, name: str, values: Sequence[Any]) -> list[Any]:
    """What the files NAME_0.pb, NAME_1.pb, ... hold for these values: arrays, lists of them, or None."""
    import onnx
    from onnx import numpy_helper

    read = {
        "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
        "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
        "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
    }
    results = []
    for i, value in enumerate(values):
        proto, convert = read[value.type.WhichOneof("value")]
        results.append(convert(proto.FromString((folder / f"{name}_{i}.pb").read_bytes())))
    return results


def ramp(value: Any) -> npt.NDArray[np.float32]:
    """What ONNX's runner feeds the models that come without inputs: 0 to 1 in equal steps."""
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def write_model_tests(folder: Path) -> None:
    import onnx
    from onnx.backend.test import loader

    for kind in ("simple", "pytorch-converted", "pytorch-operator", "real"):
        for case in loader.load_model_tests(kind=kind):
            if case.model_dir is not None:
                path = Path(case.model_dir, "model.onnx")
            else:
                assert case.url is not None
                path = Path(onnx.__file__).parent.parent / case.url
            model = onnx.load(path)
            initialised = {t.name for t in model.graph.initializer}
            inputs = [v for v in model.graph.input if v.name not in initialised]
            sets: list[tuple[Any, Any]] = []
            for data in sorted(path.parent.glob("test_data_set*")):
                sets.append((stored(data, "input", inputs), stored(data, "output", model.graph.output)))
            if case.model_dir is None:
                sets.append(
                    (
                        [ramp(v) for v in inputs],
                        stored(path.parent, f"{path.stem}_output", model.graph.output),
                    )
                )
            assert sets, path
            write(folder / f"{kind}-{case.name}", model, sets, case.rtol, case.atol)


def write_node_tests(folder: Path) -> None:
    from onnx.backend.test import loader

    for case in loader.load_model_tests(kind="node"):
        assert case.data_sets is not None  # node tests carry both
        sets = [(plain(inputs), plain(outputs)) for inputs, outputs in case.data_sets]
        write(folder / case.name, case.model, sets, case.rtol, case.atol)


def write_version_tests(folder: Path) -> None:
    import versions
    from onnx.backend.test import loader

    def tests() -> Iterator[tuple[str, Any, list[Any]]]:
        for case in loader.load_model_tests(kind="node"):
            assert case.data_sets is not None
            inputs, _ = case.data_sets[0]
            if len(inputs) == len(case.model.graph.input):
                yield case.name, case.model, [plain(value) for value in inputs]

    for name, model, inputs, outputs in versions.cases(tests()):
        write(folder / name, model, [(inputs, outputs)], rtol=1e-3, atol=1e-5)


def main(folder: Path) -> None:
    import onnx

    warnings.simplefilter("ignore")
    write_node_tests(folder)
    write_model_tests(folder)
    write_version_tests(folder)
    (folder / "complete").write_text(onnx.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
