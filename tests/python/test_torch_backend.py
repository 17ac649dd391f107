"""The backend of torch.compile: shapes, state, layouts and aliases, and what runs in PyTorch instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import deepseek as ds
import deepseek.torch as bridge
import pytest
import torch
from deepseek.torch.compiler import Options, compile_graph
from deepseek.torch.piece import Piece
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return torch.compile(function, backend="deepseek", **options)


def check(function: Callable[..., Any], *args: Any, eager: int = 0) -> Any:
    """Compares with eager; `eager`: how many nodes may run in PyTorch."""
    expected = function(*args)
    result = compiled(function)(*args)
    torch.testing.assert_close(result, expected, check_stride=True)
    assert bridge.explain().eager_ops.total() == eager, str(bridge.explain())
    return result


def test_importing_deepseek_leaves_torch_out() -> None:
    code = "import sys, deepseek; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_entry_point_is_found() -> None:
    assert "deepseek" in torch._dynamo.list_backends()


def test_new_batch_sizes_compile_once() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    run = compiled(model, dynamic=True)
    with torch.no_grad():
        for batch in (2, 3, 17, 64):
            x = torch.randn(batch, 8)
            torch.testing.assert_close(run(x), model(x))
    assert len(bridge.explain().records) == 1


def test_shapes_computed_from_shapes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        return x.view(batch * length, width)[1:].repeat(2, 1) + torch.arange(width).float()

    run = compiled(function, dynamic=True)
    for shape in ((2, 3, 4), (5, 2, 6), (3, 7, 2)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), function(x))
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())


def test_numbers_that_are_no_sizes() -> None:
    """A number of the user's that no tensor's shape shows, and one that may be negative."""

    def function(x: torch.Tensor, repeats: int, shift: int) -> torch.Tensor:
        return (x.repeat(repeats) + repeats) * 2 + torch.arange(repeats * x.shape[0]) + shift

    run = compiled(function, dynamic=True)
    for repeats, shift in ((2, 3), (5, 7), (7, -4)):
        x = torch.randn(4)
        torch.testing.assert_close(run(x, repeats, shift), function(x, repeats, shift))


def test_changed_parameters_are_seen() -> None:
    model = nn.Linear(8, 8)
    run = compiled(model)
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(run(x), model(x))
        model.weight.mul_(2)  # a new version
        torch.testing.assert_close(run(x), model(x))
        model.weight.data = torch.randn(8, 8)  # a new address
        torch.testing.assert_close(run(x), model(x))
        model.load_state_dict(nn.Linear(8, 8).state_dict())
        torch.testing.assert_close(run(x), model(x))


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = nn.Linear(4, 4)
        x = torch.randn(2, 4)
        torch.testing.assert_close(compiled(model)(x), model(x))


def test_inputs_that_are_not_contiguous() -> None:
    check(lambda x, y: x.t() @ y[:, ::2], torch.randn(5, 3), torch.randn(5, 8))


@pytest.mark.filterwarnings("ignore:precision")
@pytest.mark.parametrize(("precision", "allowed"), [("bf16", 0.02), ("int8", 0.05)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_less_precision(precision: str, allowed: float, dynamic: bool) -> None:
    """Of layers with weights, and of attention's products, which have none."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(8, 32, 3, stride=2, padding=1)
            self.linear = nn.Linear(32, 64)
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(torch.relu(self.convolution(x)).flatten(2).transpose(1, 2))
            return self.attention(y, y, y)[0]

    model = Model().eval()
    compiled = torch.compile(model, backend="deepseek", options={"precision": precision}, dynamic=dynamic)
    for batch in (1, 3):
        x = torch.randn(batch, 8, 9, 11)
        with torch.inference_mode():
            got, want = compiled(x), model(x)
        assert (got - want).abs().max() <= allowed * want.abs().max()


def test_channels_last() -> None:
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    model = nn.Conv2d(3, 4, 3).eval()
    with torch.no_grad():
        expected = model(x)
        result = compiled(model)(x)
    torch.testing.assert_close(result, expected)


def test_results_that_are_views() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return y, y.t(), y.view(-1), x.t(), x

    x = torch.randn(3, 4)
    y, transposed, flat, xt, same = check(function, x)
    y[0, 1] = 7.0
    assert transposed[1, 0] == 7.0
    assert flat[1] == 7.0
    assert xt.data_ptr() == same.data_ptr() == x.data_ptr()


def test_views_of_inputs_of_symbolic_size() -> None:
    """AOT Autograd makes these anew from where they begin in memory."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        half, y = x.shape[1] // 2, x * 2
        parts = (*x.split([half, x.shape[1] - half], 1), x[1:, half], x.diagonal(1), x.unfold(1, 2, 1))
        return *parts, x[:, :1].expand(x.shape), y, y[:, half:]

    run = compiled(function)
    for width in (4, 5, 7):
        x = torch.randn(4, width)
        wanted = function(x)
        torch.testing.assert_close(run(x), wanted, rtol=0, atol=0, check_stride=True)
        inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
        for leaf, call in zip(inputs, (function, run), strict=True):
            sum((y * y).sum() for y in call(leaf)).backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_numbers_that_ops_want_to_know() -> None:
    def function(x: torch.Tensor, w: torch.Tensor, stride: int, p: int) -> torch.Tensor:
        return torch.renorm(nn.functional.conv1d(x, w, stride=stride, padding=p), p, 0, 1.0)

    run = compiled(function)
    w = torch.randn(4, 3, 3)
    for stride, p in ((1, 2), (2, 3), (3, 4)):
        x = torch.randn(2, 3, 9 + p)
        torch.testing.assert_close(run(x, w, stride, p), function(x, w, stride, p))
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_nothing_of_symbolic_length() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros((x.shape[0], 0, 2))

    run = compiled(function, dynamic=True)
    for size in (2, 5):
        assert run(torch.ones(size, 3)).shape == (size, 0, 2)


def test_inputs_that_are_changed() -> None:
    def function(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        total.add_(x.sum(0))
        x[:, 0] = 0
        return x + total

    x, total = torch.randn(4, 3), torch.zeros(3)
    x2, total2 = x.clone(), total.clone()
    torch.testing.assert_close(compiled(function)(x, total), function(x2, total2))
    torch.testing.assert_close(x, x2)
    torch.testing.assert_close(total, total2)


def test_overlapping_windows_of_transposed_memory() -> None:
    """as_strided counts in memory, which is not in the order of the axes here."""

    def windows(x: torch.Tensor) -> torch.Tensor:
        y = (x * 2).transpose(0, 1)  # [4, 6] in memory of [6, 4]
        return y.as_strided((2, 4, 4), (8, 1, 4), 0) + y.as_strided((2, 4, 4), (4, 4, 1), 4)

    check(windows, torch.randn(6, 4))
    x = torch.randn(6, 4, requires_grad=True)
    weight = torch.randn(2, 4, 4)
    (wanted,) = torch.autograd.grad((windows(x) * weight).sum(), x)
    (got,) = torch.autograd.grad((compiled(windows)(x) * weight).sum(), x)
    torch.testing.assert_close(got, wanted)
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_slices_of_symbolic_size_are_written() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = x.clone()
        z[2:] = y[2:]
        z[-1:] = 3
        z[::2] = y[::2] * 2
        z[:, 1:3] += 1
        return z

    run = compiled(function, dynamic=True)
    for size in (4, 5, 9):
        x, y = torch.randn(size, 4), torch.randn(size, 4)
        torch.testing.assert_close(run(x, y), function(x, y))
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_integers_that_no_float_holds() -> None:
    most, least = torch.iinfo(torch.int64).max, torch.iinfo(torch.int64).min

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        chosen = torch.where(x > 0, most, least)
        return chosen, x.long().masked_fill(x > 0, most - 1), torch.full((2,), 2**53 + 1)

    check(function, torch.tensor([1.0, -2.0, 3.0]))


def test_bits_read_as_another_type() -> None:
    check(lambda x: (x.view(torch.int32) & 0x7FFFFFFF).view(torch.float32), torch.randn(3, 5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_shifts_by_operators(dtype: torch.dtype) -> None:
    x = torch.arange(-60, 60).to(dtype)
    check(lambda x, n: (x << 3) + (x >> 2) + (x >> n) + (x << n), x, torch.arange(120).to(dtype) % 8)


def test_weights_as_length_and_direction() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 2))
    x = torch.randn(2, 3, 5)
    wanted = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    got = torch.autograd.grad(compiled(layer)(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(got, wanted)
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_checks_of_values_raise() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch._assert_async((x > 0).all(), "not positive")
        return x * 2

    check(function, torch.ones(3))
    with pytest.raises(RuntimeError, match="not positive"):
        compiled(function)(-torch.ones(3))


def test_what_deepseek_lacks_runs_in_pytorch() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.matrix_exp(x @ x.t() / 9)
        return torch.matrix_exp(y.abs().sqrt() / 9) * 2 + x.sum()

    x = torch.randn(4, 4)
    torch.testing.assert_close(compiled(function)(x), function(x))
    assert bridge.explain().eager_ops == {"aten.linalg_matrix_exp.default": 2}
    assert "2 x aten.linalg_matrix_exp.default: no translation" in str(bridge.explain())
    assert len(bridge.explain().records[0].pieces) == 3  # before, between and after


def test_a_view_is_made_where_it_is_used() -> None:
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        check(lambda x: second(torch.matrix_exp(first(x))), torch.randn(5, 6), eager=1)
    outputs = [len(piece.outputs) for _, piece in bridge.explain().records[0].pieces]
    assert outputs == [1, 1]  # the second layer's transposed weights do not leave the first piece


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (3, 2), (5, 4), (9, 13)])
def test_adaptive_pools(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 7, 7, requires_grad=True)
    check(nn.AdaptiveMaxPool2d(size), x.detach())
    check(nn.AdaptiveAvgPool2d(size), x.detach())
    expected = torch.autograd.grad(nn.AdaptiveAvgPool2d(size)(x).square().sum(), x)
    result = torch.autograd.grad(compiled(nn.AdaptiveAvgPool2d(size))(x).square().sum(), x)
    torch.testing.assert_close(result, expected)


def test_random_numbers_come_from_pytorch() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand(3, 3) + 1

    x = torch.randn(3, 3)
    torch.manual_seed(3)
    expected = function(x)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(function)(x), expected)
    assert len(bridge.explain().records[0].pieces) == 1


def test_random_numbers_are_drawn_into_memory_with_gaps() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(6, 20)
        y[:, ::2].normal_(1, 2)
        return y + x.normal_()

    results = []
    for run in (function, compiled(function)):
        torch.manual_seed(1)
        results.append(run(torch.zeros(6, 40)[:, 1::2]))
    torch.testing.assert_close(results[1], results[0])
    assert not bridge.explain().eager_ops, str(bridge.explain())


def test_random_numbers_meet_what_they_meet_in_pytorch() -> None:
    """The order of topk(sorted=False) is PyTorch's own: it decides which element a dropped place takes."""

    def function(x: torch.Tensor) -> torch.Tensor:
        places = x.topk(20, sorted=False)[1]
        return x.scatter(0, places, nn.functional.dropout(x[places], 0.5))

    x = torch.randn(40, requires_grad=True)
    results = []
    for run in (function, compiled(function)):
        torch.manual_seed(1)
        y = run(x)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
    for got, wanted in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, wanted)


def test_one_source_line_for_each_step() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x, -1)

    check(function, torch.randn(4, 4))
    assert "test_torch_backend.py:" in bridge.explain().records[0].pieces[0][1].explain()


def test_empty_and_scalar_tensors() -> None:
    check(lambda x: (x * 2, x.sum()), torch.randn(0, 3))
    torch._dynamo.reset()
    check(lambda x: x + 1, torch.tensor(2.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.int64])
def test_dtypes(dtype: torch.dtype) -> None:
    x = (torch.randn(4, 5) * 10).to(dtype)
    y = (torch.rand(4, 5) * 10 + 1).to(dtype)
    expected = x * y + x
    result = compiled(lambda x, y: x * y + x)(x, y)
    torch.testing.assert_close(result, expected)


def test_promotion() -> None:
    whole, real = torch.arange(6).view(2, 3), torch.randn(2, 3)
    check(lambda a, b: (a + b, a / 2, a * 1.5, a > b, (a > 2) & (b > 0), b.double() + b), whole, real)


def test_threads_option() -> None:
    run = compiled(lambda x: x @ x, options={"threads": 1})
    x = torch.randn(16, 16)
    torch.testing.assert_close(run(x), x @ x)


def test_torch_compat_function_module_and_method() -> None:
    @ds.torch_compat
    def double(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.relu(x * 2)

    class Scale:
        factor = 3

        @ds.torch_compat
        def apply(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x * self.factor}

    linear = nn.Linear(3, 2)
    x = ds.Tensor([1.0, 2.0, 3.0])
    assert str(double(x)) == "[2.0, 4.0, 6.0]"
    assert isinstance(Scale().apply(x)["y"], ds.Tensor)
    assert str(Scale().apply(x)["y"]) == "[3.0, 6.0, 9.0]"
    module = ds.torch_compat(linear)
    y = torch.from_dlpack(module(x))
    torch.testing.assert_close(y, linear(torch.tensor([1.0, 2.0, 3.0])).detach())
    assert module.in_features == 3
    assert isinstance(double(torch.ones(2)), torch.Tensor)


def test_compile_module_names_what_it_lacks() -> None:
    class Lacking(nn.Module):
        def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(x)

    for function, name in ((torch.matrix_exp, "matrix_exp"), (torch.linalg.inv, "_linalg_check_errors")):
        with pytest.raises(ds.Error, match=name):
            ds.compile(Lacking(function), example_inputs=(torch.randn(3, 3),))


def test_compile_module_with_dynamic_shapes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    batch = torch.export.Dim("batch", min=1, max=1000)
    executable = ds.compile(model, example_inputs=(torch.randn(3, 4),), dynamic_shapes=({0: batch},))
    for size in (1, 3, 50):
        x = torch.randn(size, 4)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(executable(x.numpy())), model(x))


def test_unequal_dynamic_sizes_name_the_line() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y).relu()

    run = compiled(function, dynamic=True)
    torch.testing.assert_close(run(torch.ones(5, 3), torch.ones(5, 3)), torch.full((5, 3), 2.0))
    with pytest.raises(RuntimeError, match=r"add.*5.*2(?s:.*)x \+ y"):
        run(torch.ones(5, 3), torch.ones(2, 3))


def test_a_module_with_unequal_dynamic_sizes_names_the_input() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    batch = torch.export.Dim("batch", min=1, max=1000)
    example = (torch.ones(4, 3), torch.ones(4, 3))
    executable = ds.compile(Sum(), example_inputs=example, dynamic_shapes=({0: batch}, {0: batch}))
    with pytest.raises(ds.Error, match='input "y"') as caught:
        executable(torch.ones(5, 3).numpy(), torch.ones(2, 3).numpy())
    assert "= 5" in caught.value.expected


def test_writes_of_whole_parameters_that_no_counter_sees() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 3))
    run = compiled(model)
    x = torch.randn(3, 40)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(run(x), model(x))
            model[0].weight.data.mul_(1.5)
            torch.testing.assert_close(run(x), model(x))
            model[0].bias.numpy()[:] += 1.0
            torch.testing.assert_close(run(x), model(x))
            model[1].bias.data[1] = 7.0  # a small one is looked at whole


def test_data_in_place_of_a_parameter_s_own() -> None:
    """Even where the allocator gives it the memory that was the parameter's."""
    model = nn.Linear(64, 64)
    run = compiled(model)
    x = torch.randn(3, 64)
    with torch.no_grad():
        run(x)
        for seed in range(6):
            model.weight.data = torch.empty(0)
            model.weight.data = torch.zeros(64, 64)
            model.weight.data.view(-1)[100 * seed + 5] = 1.0
            torch.testing.assert_close(run(x), model(x))
        model.weight.data = model.weight.data.t()
        torch.testing.assert_close(run(x), model(x))


def test_writes_of_some_elements_that_no_counter_sees_need_refresh() -> None:
    model = nn.Linear(80, 80)
    run = compiled(model)
    x = torch.randn(3, 80)
    with torch.no_grad():
        run(x)
        model.weight.data[3, 5:8] *= 3
        ds.refresh(model)
        torch.testing.assert_close(run(x), model(x))


def test_freeze_off_follows_every_write() -> None:
    model = nn.Linear(8, 8)
    run = compiled(model, options={"freeze": False})
    x = torch.randn(3, 8)
    with torch.no_grad():
        run(x)
        model.weight.data.mul_(3)
        torch.testing.assert_close(run(x), model(x))


def test_arguments_by_name() -> None:
    check(lambda x: torch.sort(x, dim=0, descending=True, stable=True), torch.randn(5, 4))


def test_numbers_from_data() -> None:
    def function(x: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = start.item()
        torch._check(n >= 0)
        torch._check(n + 2 <= 5)
        rows = x.nonzero()
        return x.narrow(0, n, 2) + 1, x * n, rows * 2

    run = compiled(function, fullgraph=True)
    x = torch.randn(5, 3)
    with torch._dynamo.config.patch(capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True):
        for start in (0, 2, 3):
            for result, want in zip(
                run(x, torch.tensor(start)), function(x, torch.tensor(start)), strict=True
            ):
                torch.testing.assert_close(result, want)


def test_a_graph_with_writes_is_refused() -> None:
    module = make_fx(lambda x: [x.add_(1)])(torch.zeros(3))
    with pytest.raises(ds.Error, match=r"add_.*leaves its arguments, got writes"):
        compile_graph(module, [torch.zeros(3)], "inference", Options())


@pytest.mark.parametrize("channels", [24, 144, 304])
def test_convolutions_of_a_training_step_are_as_exact_as_eager_ones(channels: int) -> None:
    """Batch norms of few values make large errors of small ones."""
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    x = torch.randn(2, channels, 16, 16, requires_grad=True)
    weight = torch.randn(2, channels, 16, 16)

    def step(run: Callable[..., Any], x: torch.Tensor) -> list[torch.Tensor]:
        y = run(x)
        return [y.detach(), *torch.autograd.grad((y * weight.to(y.dtype)).sum(), [x, layer.weight])]

    ours, eager = step(compiled(layer), x), step(layer, x)
    layer.double()
    for y, e, exact in zip(ours, eager, step(layer, x.double()), strict=True):
        assert (y - exact).norm() <= 5 * (e - exact).norm()


def test_negated_views() -> None:
    """Such a tensor's memory may be row-major and holds the numbers with the opposite sign."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    negated = torch._neg_view(torch.arange(4.0))
    assert negated.is_contiguous()
    assert negated.is_neg()
    twice = compiled(double)
    for x in (negated, torch.arange(4.0), negated):
        torch.testing.assert_close(twice(x), double(x))
    x = torch.arange(4.0, requires_grad=True)
    (slope,) = torch.autograd.grad(twice(x), x, negated)
    torch.testing.assert_close(slope, -2 * torch.arange(4.0))


def test_calls_from_several_threads() -> None:
    both = compiled(lambda x, y: (x @ y, x + 1))
    inputs = [(torch.full((3, 4), float(i)), torch.full((4, 5), 2.0)) for i in range(4)]
    both(*inputs[0])

    def call(i: int) -> bool:
        results = [both(*inputs[i]) for _ in range(200)]
        return all(bool((p == 8 * i).all()) and bool((s == i + 1).all()) for p, s in results)

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(call, range(len(inputs))))


def test_a_piece_checks_its_tensors() -> None:
    graph = ds.Graph()
    graph.output("y", graph.placeholder("x", shape=["N", 2]) * 2.0)
    piece = Piece(ds.compile(graph), [], [])
    x = torch.arange(12.0).view(2, 6)
    (y,) = piece.run([x[:, ::3]], ((2, 2),))  # neither row-major nor of the size that comes next
    torch.testing.assert_close(y, x[:, ::3] * 2)
    (y,) = piece.run([torch.empty(0, 2)], ((0, 2),))
    assert y.shape == (0, 2)
    with pytest.raises(ds.Error, match=r'input "x" of float32 on the CPU, got torch.int32 on cpu'):
        piece.run([torch.zeros(2, 2, dtype=torch.int32)], ((2, 2),))
    with pytest.raises(ds.Error, match="expected input"):
        piece.run([torch.zeros(2, 3)], ((2, 3),))
    with pytest.raises(ds.Error, match="memory for output"):
        piece.run([torch.zeros(2, 2)], ((3, 2),))
    with pytest.raises(ds.Error, match="1 inputs and 1 shapes"):
        piece.run([], ())
    (y,) = piece.run([torch.ones(1, 2)], ((1, 2),))
    torch.testing.assert_close(y, torch.full((1, 2), 2.0))


def test_a_piece_takes_tensors_out_of_the_list_wherever_they_lie() -> None:
    graph = ds.Graph()
    graph.output("y", graph.placeholder("x", shape=["N", 2]) * 2.0)
    piece = Piece(ds.compile(graph), [], [])
    memory, made = torch.arange(40.0), []
    for start in (0, 3, 7, 30):  # the same dims at other addresses
        inputs = [memory[start : start + 4].view(2, 2)]
        made += piece.run(inputs, ((2, 2),))
        assert inputs == []
    for start, y in zip((0, 3, 7, 30), made, strict=True):
        torch.testing.assert_close(y, memory[start : start + 4].view(2, 2) * 2)
    kept = [torch.zeros(2, 3)]
    with pytest.raises(ds.Error, match="expected input"):
        piece.run(kept, ((2, 3),))
    assert len(kept) == 1


def test_order_of_inputs_and_results() -> None:
    """One piece takes the function's list as it is only where its inputs and results are the function's."""
    functions = (
        lambda x, y, z: (x + y, y - z),
        lambda x, y, z: (y - z, x + y),
        lambda x, y, z: (z - x,),
        lambda x, y, z: (x + y, x + y, y),
        lambda x, y, z: (y - x, (z * 2).t()),
    )
    for function in functions:
        for dynamic in (False, True):
            ours = compiled(function, dynamic=dynamic)
            for size in (3, 4):
                inputs = [torch.rand(size, size) for _ in range(3)]
                torch.testing.assert_close(ours(*inputs), function(*inputs))


def test_numbers_and_literals_in_pytorch_calls() -> None:
    """What PyTorch is called with is written as Python."""

    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = torch.logspace(0.0, float(x.shape[0]), x.shape[0])
        return torch.special.zeta(x, 3.0), torch.nan_to_num(x, posinf=float("inf")), weights

    function = compiled(f, dynamic=True)
    for n in (3, 5):
        x = torch.linspace(2, 3, n)
        torch.testing.assert_close(function(x), f(x))
