"""One compiled BERT at many sizes: a size that has not been seen costs no compilation."""

import deepseek.torch as bridge
import pytest
import torch
import zoo


@pytest.mark.parametrize("masked", [False, True])
def test_sizes_of_bert(masked: bool) -> None:
    """100 pairs of batch size and length. Dynamo compiles apart what has a size of one: the batches here."""
    kind = zoo.transformers()
    torch.manual_seed(0)
    model = kind.BertModel(kind.BertConfig(**zoo.TINY)).eval()
    torch._dynamo.reset()
    bridge.reset()
    run = torch.compile(model, backend="deepseek", dynamic=True)
    sizes = {(1 + 7 * i % 13, 2 + 11 * i % 97) for i in range(100)}
    assert len(sizes) == 100
    for batch, length in sorted(sizes, key=lambda size: size[0] * size[1] % 31):
        inputs = {"input_ids": torch.randint(1000, (batch, length))}
        if masked:
            lengths = torch.randint(1, length + 1, (batch, 1))
            inputs["attention_mask"] = (torch.arange(length) < lengths).long()
        with torch.no_grad():
            got, want = run(**inputs).last_hidden_state, model(**inputs).last_hidden_state
        assert zoo.relative_error(got, want) <= 1e-5, (batch, length)
    records = bridge.explain().records
    assert len(records) <= 3, len(records)
    assert not bridge.explain().eager_ops, str(bridge.explain())
