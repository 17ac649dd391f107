"""PyTorch's own operator database against the translation: whatever deepseek takes over must agree with
eager.

Ops that deepseek lacks run in PyTorch inside the same program, so that every sample has a result to
compare.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from deepseek.torch.compiler import Options, compile_graph
from deepseek.torch.library import decompositions
from torch import Tensor
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

# Ops whose result is random or undefined, that cannot be traced (their result decides what comes next), that
# read beyond their input (as_strided_partial_views), or that need a GPU.
LEFT_OUT = """
    allclose as_strided_partial_views bernoulli cauchy corrcoef cov empty empty_like empty_permuted
    empty_strided equal exponential geometric item jiterator_2inputs_2outputs
    jiterator_4inputs_with_extra_args jiterator_binary
    jiterator_binary_return_by_ref jiterator_unary linalg.lstsq log_normal multinomial new_empty
    new_empty_strided nn.functional.alpha_dropout nn.functional.ctc_loss nn.functional.dropout
    nn.functional.dropout2d nn.functional.dropout3d nn.functional.feature_alpha_dropout
    nn.functional.fractional_max_pool2d nn.functional.fractional_max_pool3d nn.functional.gaussian_nll_loss
    nn.functional.one_hot nn.functional.rrelu normal pca_lowrank rand_like randint randint_like randn
    randn_like svd_lowrank take tensor_split uniform
"""
OPS = [op for op in op_db if not {op.name, op.formatted_name} & set(LEFT_OUT.split())]
PARTS = 16
# Positions of equal elements are in no defined order, and integers are often equal.
TIES = frozenset({"topk", "sort", "argsort", "median", "nanmedian", "kthvalue", "mode"})
# Beside float32, in the whole suite.
DTYPES = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float64]


def part_of(op: Any) -> int:
    return zlib.crc32(op.formatted_name.encode()) % PARTS


def samples_of(op: Any, dtype: torch.dtype, count: int) -> list[Any]:
    """Some samples of an op, spread over its list."""
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=False))
    samples = [sample for sample in samples if not sample.kwargs.get("dropout_p")]  # random
    return samples[:: max(1, len(samples) // count)][:count]


def strided(leaves: list[Any]) -> bool:
    return all(leaf.layout is torch.strided for leaf in leaves if isinstance(leaf, torch.Tensor))


def check(op: Any, sample: Any) -> bool:
    """Compares the compiled sample with eager; tells whether all of it was compiled."""
    leaves, structure = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    tensors = [leaves[i].clone() for i in places]

    def call(*given: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, given, strict=True):
            filled[place] = tensor
        x, args, kwargs = pytree.tree_unflatten(filled, structure)
        # What is known up to signs (singular vectors) is made comparable.
        return pytree.tree_leaves(sample.output_process_fn_grad(op(x, *args, **kwargs)))

    expected = call(*(tensor.clone() for tensor in tensors))
    # Writes become values, as AOT Autograd makes them.
    pure = dispatch_functionalize(call, FunctionalTensorMode(_allow_token_discovery=True))
    module = make_fx(pure, decompositions(), tracing_mode="fake")(*tensors)
    bridge.reset()
    named = sum(node.op == "placeholder" for node in module.graph.nodes)
    given = [*tensors, *(torch.empty(0) for _ in range(named - len(tensors)))]  # tokens of effects come last
    results = compile_graph(module, given, "inference", Options(threads=1))(given)
    for result, reference in zip(results, expected, strict=True):
        if isinstance(reference, torch.Tensor):
            torch.testing.assert_close(result, reference, rtol=2e-4, atol=2e-5, equal_nan=True)
    (record,) = bridge.explain().records
    return bool(record.pieces) and not record.eager


@pytest.mark.parametrize("part", range(PARTS))
def test_operator_database(part: int, whole_suites: bool) -> None:
    run(part, torch.float32, 4 if whole_suites else 1)
    if whole_suites:
        for dtype in DTYPES:
            run(part, dtype, 2)


def run(part: int, dtype: torch.dtype, count: int) -> None:
    counts: Counter[bool] = Counter()
    wrong = []
    for op in OPS:
        if part_of(op) != part or dtype not in op.dtypes or (not dtype.is_floating_point and op.name in TIES):
            continue
        for sample in samples_of(op, dtype, count):
            if not strided(pytree.tree_leaves((sample.input, sample.args, sample.kwargs))):
                continue
            try:
                counts[check(op, sample)] += 1
            except Exception as error:
                wrong.append(f"{op.formatted_name}: {type(error).__name__}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)
    assert counts[True] >= counts.total() // 3, f"{counts[True]} of {counts.total()} samples compiled whole"


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_cross_entropy(reduction: str, weighted: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    weight, dy = torch.rand(9) if weighted else None, torch.rand(17)
    target = torch.randint(0, 9, (17,))
    target[2] = -100

    def loss(x: torch.Tensor) -> torch.Tensor:
        scale = None if weight is None else weight.to(x.dtype)
        y = torch.nn.functional.cross_entropy(x, target, scale, reduction=reduction)
        return (y * dy.to(x.dtype)).sum()

    x = torch.randn(17, 9)
    gradients = []
    for run, own in ((loss, x.double()), (torch.compile(loss, backend="deepseek"), x.clone())):
        value: Any = run(own.requires_grad_())
        value.backward()
        assert own.grad is not None
        gradients.append(own.grad.double())
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-6 * gradients[0].abs().max()


def _add_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x.index_add(0, torch.arange(rows.numel()), rows)


def _largest_of_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x.index_reduce(0, torch.arange(rows.numel()), rows, "amax")


REFUSED: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "boundaries of two axes": (torch.bucketize, (torch.rand(3), torch.rand(2, 4))),
    "rows that would broadcast": (_add_rows, (torch.rand(3, 2), torch.ones(2, 1))),
    "one row for several": (_add_rows, (torch.rand(3, 2), torch.ones(2))),
    "a number for rows": (_add_rows, (torch.rand(2), torch.ones(()))),
    "largest of narrow rows": (_largest_of_rows, (torch.rand(3, 2), torch.ones(2, 1))),
    "parts of two dtypes": (torch.complex, (torch.rand(3), torch.rand(3, dtype=torch.float64))),
    "a length and an angle of two dtypes": (torch.polar, (torch.rand(3).double(), torch.rand(3))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_eager_pytorch_refuses(name: str) -> None:
    function, args = REFUSED[name]
    with pytest.raises(RuntimeError) as want:
        function(*args)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=re.escape(str(want.value))):
        torch.compile(function, backend="deepseek", dynamic=False)(*args)


def test_softmax_of_a_number_and_pools_of_an_image_without_a_batch() -> None:
    image, samples = torch.rand(3, 7, 6, 5), torch.rand(2, 3, 3)

    def both(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pooled = torch.nn.functional.fractional_max_pool3d(image, 2, 3, _random_samples=samples)
        return x.softmax(0), x.log_softmax(-1), pooled

    bridge.reset()
    x = torch.tensor(2.5)
    torch.testing.assert_close(torch.compile(both, backend="deepseek")(x), both(x))
    assert not bridge.explain().eager_ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_by_given_statistics_leaves_them(dtype: torch.dtype) -> None:
    """The op itself rather than nn.functional's, with statistics of the input's own dtype."""
    generator = torch.Generator().manual_seed(0)

    def run(function: Callable[..., Tensor]) -> list[Tensor]:
        generator.manual_seed(0)
        x = torch.randn(3, 4, 5, generator=generator).to(dtype).requires_grad_()
        weight, bias, mean = (torch.randn(4, generator=generator).to(dtype) for _ in range(3))
        variance = torch.rand(4, generator=generator).to(dtype) + 0.5
        y = function(x, weight, bias, mean, variance)
        (dx,) = torch.autograd.grad(y, [x], torch.randn(y.shape, generator=generator).to(dtype))
        return [y.detach(), dx, mean, variance]

    def norm(x: Tensor, *statistics: Tensor) -> Tensor:
        y: Tensor = torch._native_batch_norm_legit(x, *statistics, False, 0.5, 1e-5)[0]
        return y

    tolerance = 1e-6 if dtype is torch.float32 else 2e-2
    for got, want in zip(run(torch.compile(norm, backend="deepseek")), run(norm), strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    assert not bridge.explain().eager_ops


def test_steps_over_nothing() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x[:, :, 2:2:3] + 1, x[:, 4::2] * 2, x[:, :, 1::3] + 1

    x = torch.randn(3, 4, 5)
    got = torch.compile(function, backend="deepseek")(x)
    for y, want in zip(got, function(x), strict=True):
        torch.testing.assert_close(y, want)
    assert not bridge.explain().eager_ops
