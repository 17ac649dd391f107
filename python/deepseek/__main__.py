"""The package's command: `python -m deepseek profile model.onnx`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

import deepseek as ds
from deepseek.arrays import NARROW

if TYPE_CHECKING:
    import numpy.typing as npt


def example(port: ds.Port, dims: dict[str, int]) -> npt.NDArray[Any]:
    """An array for an input: small numbers, valid as indices; symbols of its shape are 1 where not given."""
    shape = tuple(dims.get(dim, 1) if isinstance(dim, str) else dim for dim in port.shape)
    dtype = np.dtype("float32" if port.dtype in NARROW else port.dtype)
    drawn = np.random.default_rng(0).random(shape)
    return (drawn if dtype.kind in "fc" else drawn < 0.5).astype(dtype)


def symbol(text: str) -> tuple[str, int]:
    name, size = text.split("=")
    return name, int(size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="deepseek", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    profile = commands.add_parser("profile", help="where the time of an ONNX model goes")
    profile.add_argument("model")
    profile.add_argument("--threads", type=int)
    profile.add_argument("--isa", default="", help="cap the instruction set: avx2")
    profile.add_argument("--runs", type=int, default=0)
    profile.add_argument("--rows", type=int, default=30)
    profile.add_argument("--merge", action="store_true", help="one row for all steps that do equal work")
    profile.add_argument("--dim", type=symbol, action="append", default=[], metavar="NAME=SIZE")
    profile.add_argument("--trace", metavar="PATH", help="write a trace for ui.perfetto.dev")
    args = parser.parse_args()
    model = ds.compile(args.model, threads=args.threads, isa=args.isa)
    inputs = {name: example(port, dict(args.dim)) for name, port in model.inputs.items()}
    made = ds.profile(model, inputs, runs=args.runs)
    print(made.table(args.rows, merge=args.merge), end="")
    if args.trace:
        made.to_chrome_trace(args.trace)


if __name__ == "__main__":
    main()
