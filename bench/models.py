"""Times models in deepseek and in every engine that a user could pick instead, side by side in one run.

The engines take turns, a short burst each, round after round, so that a change in the machine's speed hits
all of them. An engine's figure is the median over rounds of its fastest run in each burst; its ratio is
the best peer's figure over its own, so that above 1 it is ahead of every peer.

    ./dev bench                                              every model, all cores
    ./dev bench --models resnet50 bert --threads 1 --isa avx2 --rounds 15 --json out.json
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turns import in_turns, keep, prepare

if TYPE_CHECKING:
    import torch

OURS = ("deepseek_torch", "deepseek_onnx")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", help="names in bench/zoo.py; default: all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--isa", choices=["native", "avx2"], default="native", help="cap every engine at this ISA"
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "int8"],
        default="fp32",
        help="bf16: a model of bf16 in PyTorch, fp32 models with each engine's switch in the others; "
        "int8: the file that ONNX Runtime's static quantiser writes, in the engines that read it",
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=float, default=0.25, help="seconds per engine and round")
    parser.add_argument("--skip", nargs="*", default=[], help="engines to leave out")
    parser.add_argument("--json", help="write the figures here")
    return parser.parse_args()


@dataclass
class Row:
    """One engine on one model."""

    engine: str
    ready_s: float
    run: Callable[[], Any]
    result: Any


class Engines:
    """Ways to run one model. Each method gets it ready and returns a callable that returns one array."""

    def __init__(
        self,
        model: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        path: str,
        threads: int,
        precision: str = "fp32",
    ) -> None:
        self.model, self.inputs, self.path, self.threads = model, inputs, path, threads
        self.precision = precision
        self.arrays = [tensor.numpy() for tensor in inputs]
        self.in_mlas: set[str] = set()  # engines that run mostly in MLAS

    def _in_precision(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """The model and its inputs as PyTorch's own engines get them."""
        if self.precision == "fp32":
            return self.model, self.inputs
        inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in self.inputs)
        return copy.deepcopy(self.model).bfloat16(), inputs

    def eager(self) -> Callable[[], Any]:
        model, inputs = self._in_precision()
        return lambda: model(*inputs).float().numpy()

    def eager_channels_last(self) -> Callable[[], Any]:
        import torch

        if self.inputs[0].dim() != 4:
            raise ValueError("no image input")
        model, inputs = self._in_precision()
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = inputs[0].to(memory_format=torch.channels_last)
        return lambda: model(x).float().numpy()

    def inductor(self) -> Callable[[], Any]:
        import torch
        import torch._inductor.config as config

        config.freezing = True
        model, inputs = self._in_precision()
        compiled = torch.compile(model)
        return lambda: compiled(*inputs).float().numpy()

    def onnxruntime(self) -> Callable[[], Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        feed = {port.name: array for port, array in zip(session.get_inputs(), self.arrays, strict=True)}
        return lambda: session.run(None, feed)[0]

    def openvino(self) -> Callable[[], Any]:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Core().compile_model(self.path, "CPU", settings)
        about = [op.get_rt_info() for op in model.get_runtime_model().get_ops()]
        kinds = [info["primitiveType"].astype(str) for info in about if "primitiveType" in info]
        if sum("mlas" in kind for kind in kinds) > sum("conv" in kind for kind in kinds):
            self.in_mlas.add("openvino")
        request = model.create_infer_request()
        return lambda: request.infer(dict(enumerate(self.arrays)))[0]

    def deepseek_torch(self) -> Callable[[], Any]:
        import torch

        compiled = torch.compile(self.model, backend="deepseek", options={"precision": self.precision})
        return lambda: compiled(*self.inputs).numpy()

    def deepseek_onnx(self) -> Callable[[], Any]:
        import deepseek as ds

        precision = "fp32" if self.precision == "int8" else self.precision  # the model itself is quantised
        compiled = ds.compile(self.path, threads=self.threads, precision=precision)
        return lambda: compiled(*self.arrays)


PEERS = ("eager", "eager_channels_last", "inductor", "onnxruntime", "openvino")


def start(name: str, engines: Engines, skip: list[str]) -> Iterator[Row]:
    """Gets the engines ready; one that cannot run the model is told and left out."""
    import numpy as np
    import torch

    for engine in PEERS + OURS:
        if engine in skip:
            continue
        torch._dynamo.reset()
        begin = time.perf_counter()
        try:
            run = getattr(engines, engine)()
            result = np.asarray(run())
        except Exception as error:
            print(
                f"{name:16} {engine:20} {type(error).__name__}: {str(error).splitlines()[0][:100]}",
                flush=True,
            )
            continue
        yield Row(engine, time.perf_counter() - begin, run, result)


def measure(name: str, args: argparse.Namespace) -> dict[str, dict[str, float | bool]]:
    import torch
    import zoo

    model, inputs = zoo.BENCH[name].make()
    figures: dict[str, dict[str, float | bool]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = os.path.join(folder, f"{name}.onnx")
        zoo.export_onnx(model, inputs, path)
        # MLAS has no switch that caps its instruction set: ONNX Runtime is left out then, and OpenVINO
        # does not count where it runs matrix products in MLAS.
        skip = args.skip + (["onnxruntime"] if args.isa != "native" else [])
        if args.precision == "bf16":
            skip = [*skip, "onnxruntime"]  # has no such switch
        if args.precision == "int8":
            quantised = os.path.join(folder, f"{name}_quantised.onnx")
            zoo.quantise_onnx(path, inputs, quantised)
            path, skip = quantised, [*skip, "eager", "eager_channels_last", "inductor", "deepseek_torch"]
        engines = Engines(model, inputs, path, args.threads, args.precision)
        rows = list(start(name, engines, skip))
        uncapped = engines.in_mlas if args.isa != "native" else set()
        for row in rows:  # starting one engine resets what Dynamo compiled for another
            row.run()
        times = in_turns({row.engine: row.run for row in rows}, args.rounds, args.burst)
    peers = [row.engine for row in rows if row.engine in PEERS and row.engine not in uncapped]
    best = min((times[peer] for peer in peers), default=float("nan"))
    for row in rows:
        seconds = times[row.engine]
        error = zoo.relative_error(row.result, rows[0].result)
        figures[row.engine] = {
            "ms": seconds * 1e3,
            "best_peer_over_this": best / seconds,
            "ready_s": row.ready_s,
            "error": error,
            "capped": row.engine not in uncapped,
        }
        print(
            f"{name:16} {row.engine:20} {seconds * 1e3:9.2f} ms   best peer / this {best / seconds:5.2f}   "
            f"ready {row.ready_s:6.2f} s   error {error:.1e}{'   not capped' * (row.engine in uncapped)}",
            flush=True,
        )
    return figures


def main() -> None:
    args = parse_arguments()
    prepare(args.threads, args.isa)
    warnings.filterwarnings("ignore")
    import torch
    import zoo

    torch.set_num_threads(args.threads)
    report = {name: measure(name, args) for name in args.models or zoo.BENCH}
    keep(args, precision=args.precision, models=report)


if __name__ == "__main__":
    main()
