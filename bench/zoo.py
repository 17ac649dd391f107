"""The models that tests and benchmarks share, at full size and small, with random weights from a fixed seed.

Statistics of batch normalisations are drawn at random: those of a fresh model (mean 0, variance 1) hide
mistakes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch


@contextlib.contextmanager
def without_torchvision_ops() -> Iterator[None]:
    """PyPI's torchvision looks for C++ operators that its CPU-only wheel lacks; its models need none."""
    register = torch.library.register_fake

    def tolerant(name: Any, *args: Any, **kwargs: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register(name, *args, **kwargs)

    torch.library.register_fake = tolerant  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.library.register_fake = register


def torchvision() -> ModuleType:
    with without_torchvision_ops():
        import torchvision
    return torchvision  # type: ignore[no-any-return]


def transformers() -> ModuleType:
    torchvision()  # transformers imports it, which fails without the care taken here
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


class OneOutput(torch.nn.Module):
    """A transformers model that takes token ids and returns one tensor."""

    def __init__(self, model: torch.nn.Module, field: str) -> None:
        super().__init__()
        self.model, self.field = model, field

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(self.model(ids), self.field)
        return result


def randomise_statistics(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)


Made = tuple[torch.nn.Module, tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Model:
    name: str
    build: Callable[[], Made]

    def make(self, seed: int = 0) -> Made:
        """The model in evaluation mode and its inputs."""
        torch.manual_seed(seed)
        with torch.no_grad():
            model, inputs = self.build()
            randomise_statistics(model)
        return model.eval(), inputs


def _vision(name: str, batch: int = 1, size: int = 224, **options: Any) -> Callable[[], Made]:
    def build() -> Made:
        model = getattr(torchvision().models, name)(weights=None, **options)
        return model, (torch.randn(batch, 3, size, size),)

    return build


def _small_resnet() -> Made:
    models = torchvision().models
    model = models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10)
    return model, (torch.randn(2, 3, 64, 64),)


def _small_vit() -> Made:
    model = torchvision().models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)
    for parameter in model.heads.parameters():  # zeros in a fresh model
        parameter.normal_(0, 0.1)
    return model, (torch.randn(2, 3, 32, 32),)


def _vit() -> Made:
    model = torchvision().models.vit_b_16(weights=None)
    for parameter in model.heads.parameters():
        parameter.normal_(0, 0.02)
    return model, (torch.randn(1, 3, 224, 224),)


def _bert(length: int, **config: Any) -> Callable[[], Made]:
    def build() -> Made:
        kind = transformers()
        model = kind.BertModel(kind.BertConfig(**config))
        return OneOutput(model, "last_hidden_state"), (torch.randint(0, 30000, (1, length)),)

    return build


def _gpt2(length: int, **config: Any) -> Callable[[], Made]:
    def build() -> Made:
        kind = transformers()
        model = kind.GPT2LMHeadModel(kind.GPT2Config(use_cache=False, **config))
        return OneOutput(model, "logits"), (torch.randint(0, model.config.vocab_size, (1, length)),)

    return build


MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}

FULL = {
    model.name: model
    for model in (
        Model("resnet50", _vision("resnet50")),
        Model("mobilenet_v2", _vision("mobilenet_v2")),
        Model("bert", _bert(128)),
        Model("minilm", _bert(32, **MINILM)),
        Model("vit_b_16", _vit),
        Model("gpt2_prefill", _gpt2(64)),
    )
}
SMALL = {
    model.name: model
    for model in (
        Model("resnet", _small_resnet),
        Model("mobilenet", _vision("mobilenet_v2", 2, 64, width_mult=0.25, num_classes=10)),
        Model("bert", _bert(16, **TINY)),
        Model("minilm", _bert(9, **TINY | {"num_attention_heads": 8})),
        Model("vit", _small_vit),
        Model("gpt2", _gpt2(13, n_layer=2, n_embd=64, n_head=4, vocab_size=500)),
    )
}
BENCH = FULL | {
    model.name: model
    for model in (
        Model("resnet50_b8", _vision("resnet50", 8)),
        Model("resnet18", _vision("resnet18")),
        Model("vgg16", _vision("vgg16")),
        Model("efficientnet_b0", _vision("efficientnet_b0")),
    )
}


def export_onnx(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: str) -> None:
    """Writes the model with PyTorch's exporter, opset 18."""
    with torch.no_grad():
        torch.onnx.export(model, inputs, path, dynamo=True, opset_version=18, verbose=False)


def quantise_onnx(path: str, inputs: tuple[torch.Tensor, ...], to: str) -> None:
    """Writes the model as ONNX Runtime's static quantiser makes it, with the ranges of these inputs."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            ports = onnx.load(path, load_external_data=False).graph.input
            feed = {port.name: tensor.numpy() for port, tensor in zip(ports, inputs, strict=True)}
            self.feeds = iter([feed])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quant_pre_process(path, to)
    quantization.quantize_static(
        to,
        to,
        Samples(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


def relative_error(y: Any, reference: Any) -> float:
    """max|y - reference| / max|reference| of two tensors."""
    y, reference = torch.as_tensor(y).double(), torch.as_tensor(reference).double()
    if y.shape != reference.shape:
        return float("inf")
    return float((y - reference).abs().max() / reference.abs().max().clamp_min(sys.float_info.min))
