"""nn.TransformerEncoderLayer outside training, which PyTorch makes one op of."""

from __future__ import annotations

import deepseek.torch as bridge
import pytest
import torch
from torch import nn

PADDED = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
LATER = torch.ones(5, 5).triu(1).bool()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(activation: str, norm_first: bool, causal: bool, padded: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        16, 4, 24, activation=activation, norm_first=norm_first, batch_first=True
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 16)
    masks = {"src_mask": LATER if causal else None, "src_key_padding_mask": PADDED if padded else None}
    layer.eval()
    with torch.no_grad():
        got = torch.compile(layer, backend="deepseek")(x, **masks)
        torch.testing.assert_close(got, layer(x, **masks), rtol=1e-4, atol=1e-5)
    assert not bridge.explain().eager_ops


def test_what_sees_nothing() -> None:
    """Where every key of a row is left out, as eager has it."""
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True).eval()
    x, mask = torch.randn(2, 5, 16), torch.ones(2, 5).bool()
    mask[0] = False
    with torch.no_grad():
        got = torch.compile(layer, backend="deepseek")(x, src_key_padding_mask=mask)
        want = layer(x, src_key_padding_mask=mask)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_that_may_be_causal(causal: bool, train: bool) -> None:
    """PyTorch's layers look into a mask, at which Dynamo would break the graph."""
    torch.manual_seed(0)
    model = nn.Transformer(16, 4, 1, 1, 24, dropout=0.0, batch_first=True).train(train)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    mask = mask if causal else mask.T.contiguous()
    x = torch.randn(2, 5, 16)
    got = torch.compile(model, backend="deepseek", fullgraph=True)(x, x, mask, mask)
    torch.testing.assert_close(got, model(x, x, mask, mask), rtol=1e-4, atol=1e-5)
    assert not bridge.explain().eager_ops
