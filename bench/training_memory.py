"""What training keeps in memory: in float32 and under ds.precision("bf16"), and for memory budgets.

Kept: what forward hands to backward, inputs and parameters apart. Between: what the backward pass has
in memory between its kernels, for the most part gradients of activations. Slopes: gradients of
parameters, which stay float32.

    ./dev python bench/training_memory.py          both tables; `./dev bench training` prints them, too
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm
from turns import in_turns, machine, prepare

if TYPE_CHECKING:
    import torch
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
LAYERS, WIDTH, BATCH, TOKENS = 24, 256, 4, 128
BUDGETS = (None, 0.5, 0.3, 0.2, 0.1, 0.05)
WINDOW = 96  # bytes of text that a classifier sees


@dataclass
class Bytes:
    kept: int
    between: int
    slopes: int

    @property
    def all(self) -> int:
        return self.kept + self.between + self.slopes


def measure(step: Callable[[], object], model: nn.Module, own: set[int]) -> Bytes:
    """Of one step, compiled and run before. `own`: addresses of what is the caller's."""
    import torch
    from deepseek.torch import piece

    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with piece.recorded() as calls, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    last = calls[-1][0]
    slopes = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None)
    return Bytes(sum(kept.values()), last.context.arena_bytes, slopes)


# -- two sets to learn


Split = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]


def texts() -> Split:
    """Windows of bytes of installed files, and whether they are of C++, Python, prose or stubs."""
    import torch

    site = Path(torch.__file__).parents[1]
    kinds = (
        sorted((site / "torch/include/ATen").glob("*.h")),
        sorted((site / "sklearn").glob("*/*.py")),
        sorted(site.glob("*.dist-info/METADATA")),
        sorted((site / "torch/_C").glob("*.pyi")),
    )
    windows, labels = [], []
    for label, files in enumerate(kinds):
        text = b"".join(file.read_bytes()[:20000] for file in files)[: 2000 * WINDOW]
        for i in range(len(text) // WINDOW):
            windows.append(
                torch.frombuffer(bytearray(text[i * WINDOW : (i + 1) * WINDOW]), dtype=torch.uint8)
            )
            labels.append(label)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.stack(windows).long()[order], torch.tensor(labels)[order]
    test = len(y) // 5
    return x[test:], y[test:], x[:test], y[:test]


def classifier() -> nn.Module:
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(256, 64)
            self.place = nn.Embedding(WINDOW, 64)
            layers = [
                nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(2)
            ]
            self.layers = nn.Sequential(*layers)
            self.head = nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layers(self.embed(x) + self.place.weight)
            result: torch.Tensor = self.head(y.mean(1))
            return result

    return Classifier()


def digits() -> Split:
    demo = _demo()
    split: Split = demo.digits()
    return split


def digits_network() -> nn.Module:
    network: nn.Module = _demo().digits_network()
    return network


def _demo():  # type: ignore[no-untyped-def]
    sys.path.insert(0, str(ROOT / "examples"))
    import demo

    return demo


def learn(
    make: Callable[[], nn.Module], split: Split, precision: str, epochs: int, seed: int
) -> tuple[float, Bytes]:
    """Accuracy on the test set, and the bytes of a step."""
    import deepseek as ds
    import torch
    from torch import nn

    torch._dynamo.reset()
    torch.manual_seed(seed)
    model = make().train()
    run = torch.compile(model, backend="deepseek")
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, y, test_x, test_y = split

    def step(batch: torch.Tensor) -> None:
        given = x[batch]
        with ds.precision(precision):
            loss = nn.functional.cross_entropy(run(given), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(epochs):
        order = torch.randperm(len(y))
        for batch in order[: len(y) // 64 * 64].split(64):
            step(batch)
        schedule.step()
    used = measure(lambda: step(batch), model, set())
    model.eval()
    with torch.no_grad(), ds.precision(precision):
        found = torch.cat(
            [torch.compile(model, backend="deepseek")(part).argmax(1) for part in test_x.split(64)]
        )
    return float((found == test_y).float().mean()), used


def in_16_bits(seeds: int) -> None:
    print('float32 beside ds.precision("bf16"), batches of 64; accuracies are means over seeds')
    print(f"{'':22} {'kept':>9} {'between':>9} {'slopes':>9} {'together':>9}            accuracy")
    for name, make, split, epochs in (
        ("digits", digits_network, digits(), 12),
        ("text classification", classifier, texts(), 3),
    ):
        rows: dict[str, tuple[Bytes, float]] = {}
        for precision in ("fp32", "bf16"):
            results = [
                learn(make, split, precision, epochs, seed)
                for seed in tqdm(
                    range(seeds), f"{name} {precision}", leave=False, disable=not sys.stderr.isatty()
                )
            ]
            rows[precision] = results[0][1], statistics.mean(accuracy for accuracy, _ in results)
        exact = rows["fp32"][0]
        for precision, (used, accuracy) in rows.items():
            parts = " ".join(
                f"{part / 1e6:6.2f} MB" for part in (used.kept, used.between, used.slopes, used.all)
            )
            print(
                f"{name + ' ' + precision:22} {parts}  {used.all / exact.all - 1:+7.1%}  {accuracy:8.2%}",
                flush=True,
            )


# -- budgets


def deep_transformer() -> nn.Module:
    from torch import nn

    layers = [
        nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        for _ in range(LAYERS)
    ]
    return nn.Sequential(*layers).train()


def under_budgets(rounds: int, seconds: float) -> None:
    import torch

    about = f"{LAYERS} transformer layers of width {WIDTH}, batch {BATCH}, {TOKENS} tokens, float32"
    print(f"memory_budget= on {about}")
    model, x = deep_transformer(), torch.randn(BATCH, TOKENS, WIDTH)
    steps: dict[str, Callable[[], None]] = {}
    used: dict[str, Bytes] = {}
    for budget in tqdm(BUDGETS, leave=False, disable=not sys.stderr.isatty()):
        torch._dynamo.reset()
        run = torch.compile(model, backend="deepseek", options={"memory_budget": budget})

        def step(run: Callable[..., torch.Tensor] = run) -> None:
            model.zero_grad()
            run(x).square().mean().backward()

        name = "none" if budget is None else f"{budget:.0%}"
        step()
        used[name], steps[name] = measure(step, model, {x.data_ptr()}), step
    times = in_turns(steps, rounds, seconds)
    whole, fastest = used["none"], times["none"]
    print(f"{'budget':>8} {'kept':>10} {'':8} {'between':>10} {'a step':>10}")
    for name, taken in times.items():
        b = used[name]
        print(
            f"{name:>8} {b.kept / 1e6:7.2f} MB {b.kept / whole.kept - 1:+8.1%} {b.between / 1e6:7.2f} MB "
            f"{taken * 1e3:7.1f} ms {taken / fastest - 1:+8.1%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--burst", type=float, default=0.5, help="seconds per budget and round")
    parser.add_argument("--table", choices=("bits", "budgets"), help="one of the two alone")
    args = parser.parse_args()
    prepare(args.threads, "native")
    import torch

    torch.set_num_threads(args.threads)
    print(f"{machine()}, {args.threads} threads")
    if args.table != "budgets":
        in_16_bits(args.seeds)
    if args.table != "bits":
        under_budgets(args.rounds, args.burst)


if __name__ == "__main__":
    main()
