"""The models that training is measured with: each with its loss, its optimizer and one batch of random data.

Without dropout: engines draw different masks, and their losses could not be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import zoo
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

BERT_MINI = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GPT_MINI = {
    "n_layer": 6,
    "n_head": 6,
    "n_embd": 192,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
}

Loss = Callable[..., torch.Tensor]
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Trainee:
    """`build`: the model, its loss as a function of the model and one batch, and that batch."""

    name: str
    build: Callable[[], tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]]
    optimizer: Optimizer

    def make(self) -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
        torch.manual_seed(0)
        model, loss, batch = self.build()
        return model.train(), loss, batch


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, fused=True)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def classified(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), target)


class Recurrent(nn.Module):
    """A language model of words: an embedding, two layers of LSTM, a linear layer."""

    def __init__(self, words: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.lstm = nn.LSTM(size, size, num_layers=2, batch_first=True)
        self.head = nn.Linear(size, words)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.lstm(self.embedding(ids))[0])
        return y


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """Ronneberger et al., 2015, with batch normalisation and convolutions that keep the size."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << i for i in range(depth + 1)]
        self.first = Block(inputs, width)
        self.down = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * a, a, 2, stride=2) for a in widths[:-1])
        self.join = nn.ModuleList(Block(2 * a, a) for a in widths[:-1])
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = [self.first(x)]
        for block in self.down:
            kept.append(block(nn.functional.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        y: torch.Tensor = self.last(x)
        return y


def _resnet18() -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
    model = zoo.torchvision().models.resnet18(num_classes=10)
    return model, classified, (torch.randn(16, 3, 64, 64), torch.randint(0, 10, (16,)))


def _bert_mini() -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
    kind = zoo.transformers()
    model = zoo.OneOutput(kind.BertForSequenceClassification(kind.BertConfig(**BERT_MINI)), "logits")
    return model, classified, (torch.randint(0, 30000, (8, 64)), torch.randint(0, 2, (8,)))


def _gpt2_mini() -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
    kind = zoo.transformers()
    model = zoo.OneOutput(kind.GPT2LMHeadModel(kind.GPT2Config(use_cache=False, **GPT_MINI)), "logits")

    def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return model, loss, (torch.randint(0, 50257, (4, 128)),)


def _lstm() -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
    def loss(model: nn.Module, ids: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(ids).flatten(0, 1), following.flatten())

    return Recurrent(2000, 256), loss, (torch.randint(0, 2000, (32, 48)), torch.randint(0, 2000, (32, 48)))


def _unet() -> tuple[nn.Module, Loss, tuple[torch.Tensor, ...]]:
    def loss(model: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(model(x), mask)

    batch = torch.randn(4, 3, 96, 96), torch.randint(0, 2, (4, 1, 96, 96)).float()
    return UNet(3, 1, 32, 3), loss, batch


TRAINEES = {
    trainee.name: trainee
    for trainee in (
        Trainee("resnet18", _resnet18, sgd),
        Trainee("bert_mini", _bert_mini, adamw),
        Trainee("gpt2_mini", _gpt2_mini, adamw),
        Trainee("lstm", _lstm, adamw),
        Trainee("unet", _unet, adamw),
    )
}
