"""From graphs and models to executables."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepseek import _core
from deepseek.arrays import cast_to
from deepseek.errors import invalid
from deepseek.executable import Executable
from deepseek.specialized import Specializations

if TYPE_CHECKING:
    import numpy.typing as npt


def compile(
    model: Any,
    target: str = "auto",
    *,
    threads: int | None = None,
    precision: str = "fp32",
    storage: str = "fp32",
    strict: bool = False,
    tune: str = "fast",
    rtol: float = 1e-5,
    freeze: bool = True,
    specialize: int = 0,
    isa: str = "",
    disable: Sequence[str] = (),
    samples: Sequence[Mapping[str, Any] | Sequence[Any]] = (),
    tolerance: float = 0.01,
    example_inputs: Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
) -> Any:
    """Compiles a ds.Graph, an ONNX model (a path or its bytes), a torch.nn.Module (with example inputs), or a
    Keras model, tf.function or SavedModel's folder.

    `target`: a preference, "auto", "cpu", "gpu", "npu" or "interpreter" (the reference); where this machine
    lacks it there is one warning that names what is used instead, or an Error when `strict`.
    `threads`: default OMP_NUM_THREADS, else what affinity mask and cgroup allow.
    `precision`: "fp32" gives fp32's results. "bf16": float32 matmuls and convolutions round their operands to
    bfloat16 where that is faster (what they multiply is stored so, for all who read it), and sum in
    float32. "int8": those whose weights are known before the run
    quantise them by column, and their input by row as it comes or, given `samples`, by the range that it has
    in them, which is faster; the others run as with "bf16". `explain()` says which do. What the target cannot
    do is said in a warning and runs in fp32. "auto": the fastest of these whose results on `samples` stay
    within `tolerance` of fp32's; explain() gives times and errors.
    "int8_weights": float32 matmuls keep weights known before the run in int8, by column, widen them where
    they multiply, and sum in float32: for few rows, where reading the weights takes the time.
    "int4_weights": the same in int4, with a bfloat16 scale per 32 neighbours of a column.
    `storage`: what kernels hand float32 values to each other in: "fp32", "bf16" or "fp16" (up to 65504).
    `samples`: inputs as runs will have them, each a mapping from names to arrays or the arrays in order.
    `tolerance`: the largest difference, relative to the largest element of each result.
    `tune`: how ways to compute the same thing are chosen: "off": by a model of the machine; "fast": close
    ones are measured, once on a machine, in about a second; "full": as long as it takes. explain() tells.
    `rtol`: how far an fp32 contraction may be from the exact result, relative to the largest element: ways
    that round more, such as Winograd's 4x4, are not taken.
    `freeze`: keep what derives from parameters (folded, packed weights) between runs.
    `specialize`: after so many runs of an Executable at the same sizes (0: never), kernels for these sizes
    alone are compiled in the background and serve from then on: faster than those for any size, but they may
    round differently, so that equal calls before and after may differ in the last bits. The four sizes used
    last are kept, each with the packed weights that its kernels want; explain() tells how often each served.
    `isa` caps the instruction set ("avx2"); one that this machine lacks ("neon") gives an executable to
    `save` and run elsewhere. `disable` leaves out passes and ways by name.
    `example_inputs`, `dynamic_shapes`: of a torch.nn.Module, as torch.export takes them. `example_inputs`
    also of a tf.function or Keras model that does not say what it takes: arrays, or TensorSpecs with None
    where sizes vary.
    """
    options: dict[str, Any] = {
        "target": target,
        "strict": strict,
        "isa": isa,
        "threads": threads or 0,
        "precision": precision,
        "storage": storage,
        "tune": tune,
        "rtol": rtol,
        "freeze": freeze,
        "specialize": specialize,
        "disable": list(disable),
        "samples": list(samples),
        "tolerance": tolerance,
    }
    if isinstance(model, _core.Graph):
        return compile_graph(model, options, stacklevel=3)
    if isinstance(model, (str, os.PathLike)) and os.path.isdir(model):
        from deepseek.tensorflow import compile_model

        _refuse_specialize(specialize)
        return compile_model(model, example_inputs, options)
    if isinstance(model, (bytes, bytearray, memoryview, str, os.PathLike)):
        from deepseek.onnx import compile_onnx

        return compile_onnx(model, options)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from deepseek.torch import compile_module

        if example_inputs is None:
            raise invalid("compile", "example_inputs for a torch.nn.Module", "none")
        return compile_module(model, example_inputs, dynamic_shapes=dynamic_shapes, **options)
    if "tensorflow" in sys.modules:
        from deepseek.tensorflow import compile_model, is_model

        if is_model(model):
            _refuse_specialize(specialize)
            return compile_model(model, example_inputs, options)
    models = "a Graph, an ONNX model's path or bytes, a torch.nn.Module, a Keras model or a tf.function"
    raise invalid("compile", models, type(model).__name__)


def _refuse_specialize(specialize: int) -> None:
    if specialize:
        raise invalid("compile", "specialize=0 for a model of TensorFlow's", str(specialize))


def compile_graph(graph: _core.Graph, options: dict[str, Any], stacklevel: int) -> Executable:
    samples = [arrays_of(graph, sample) for sample in options["samples"]]
    options = options | {"samples": samples}
    specialize = options.pop("specialize")
    core, target, notes = _core.compile(graph, **options)
    for note in notes:
        warnings.warn(note, stacklevel=stacklevel)
    if not specialize:
        return Executable(core, target)
    return Executable(
        core, target, Specializations(graph, specialize, lambda bound: _core.compile(bound, **options)[0])
    )


def compile_in_place(
    graph: _core.Graph,
    *,
    updates: Sequence[tuple[int, int]],
    threads: int,
    precision: str,
    storage: str,
    tune: str,
    rtol: float,
) -> Executable:
    """An executable that stores outputs in the memory of inputs, of which they are the new values: `updates`
    has the numbers of both. It has none of these outputs, and wants arrays that are written where they lie.
    """
    options = {
        "target": "auto",
        "strict": False,
        "isa": "",
        "threads": threads,
        "precision": precision,
        "storage": storage,
        "tune": tune,
        "rtol": rtol,
        "freeze": True,
        "specialize": 0,
        "disable": [],
        "samples": [],
        "tolerance": 0.0,
        "updates": list(updates),
    }
    return compile_graph(graph, options, stacklevel=3)


def arrays_of(
    graph: _core.Graph, sample: Mapping[str, Any] | Sequence[Any]
) -> list[_core.Array | npt.NDArray[Any]]:
    """One array per input of the graph."""
    names = [value.name for value in graph.inputs]
    by_name = isinstance(sample, Mapping)
    values = [sample.get(name) for name in names] if isinstance(sample, Mapping) else list(sample)
    if len(sample) != len(names) or any(value is None for value in values):
        given = ", ".join(sample) if by_name else f"{len(sample)} arrays"
        raise invalid("compile", f"samples of the inputs {', '.join(names)}", given)
    return [
        cast_to(value, port.dtype, f'sample of input "{port.name}"')
        for port, value in zip(graph.inputs, values, strict=True)
    ]


def load(path: str | os.PathLike[str]) -> Executable:
    """An Executable that `save` wrote. Its code runs in this process: load only what you trust."""
    return Executable(_core.Executable.load(os.fspath(path)))
