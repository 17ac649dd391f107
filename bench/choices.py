"""Times each model as compiled against the same model with each way to compute contractions forced.

    ./dev bench-choices --models resnet50 resnet18 --threads 1 --json out.json

Forcing leaves the ways out that compete with it: Winograd's others, or all of Winograd; what a way
cannot compute takes what is left. "chosen / forced" is at most 1 where the choice beats or ties the way.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

from turns import in_turns, keep, prepare

# What to leave out so that the way is taken wherever it applies.
FORCED = {
    "winograd 4x4": ["winograd 2x2", "winograd at use"],
    "winograd 2x2": ["winograd 4x4", "winograd at use"],
    "winograd at use 4x4": ["winograd 4x4", "winograd 2x2"],
    "gemm windows": ["winograd"],
    "gemm": ["winograd", "gemm windows"],
    "cascade": ["apart"],
    "apart": ["cascade"],
}
MODELS = ("resnet50", "resnet18", "vgg16", "mobilenet_v2", "efficientnet_b0")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=MODELS, help="names in bench/zoo.py")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=["native", "avx2"], default="native")
    parser.add_argument("--tune", choices=["off", "fast", "full"], default="fast")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--burst", type=float, default=0.2, help="seconds per variant and round")
    parser.add_argument("--json", help="write the figures here")
    return parser.parse_args()


def times_of(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of the model as chosen, and with each way forced."""
    import deepseek as ds
    import zoo

    model, inputs = zoo.BENCH[name].make()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        zoo.export_onnx(model, inputs, path)
        runs: dict[str, Any] = {}
        for way, disable in {"chosen": [], **FORCED}.items():
            tune = args.tune if way == "chosen" else "off"
            executable = ds.compile(path, "cpu", threads=args.threads, tune=tune, disable=disable)
            feed = {key: x.numpy() for key, x in zip(executable.inputs, inputs, strict=True)}
            executable.run(feed)
            runs[way] = lambda executable=executable, feed=feed: executable.run(feed)
        return in_turns(runs, args.rounds, args.burst)


def main() -> None:
    args = parse_arguments()
    prepare(args.threads, args.isa)
    report = {}
    for name in args.models:
        report[name] = times = times_of(name, args)
        for way, seconds in times.items():
            ratio = times["chosen"] / seconds
            print(f"{name:16} {way:20} {seconds * 1e3:9.3f} ms   chosen / forced {ratio:5.2f}", flush=True)
    keep(args, tune=args.tune, models=report)


if __name__ == "__main__":
    main()
