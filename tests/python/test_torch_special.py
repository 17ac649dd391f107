"""Special functions against PyTorch's: over the line, at their borders, at poles and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor

aten = torch.ops.aten
FAMILIES = (
    [f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"]
    + ["hermite_polynomial_h", "hermite_polynomial_he"]
    + ["laguerre_polynomial_l", "legendre_polynomial_p"]
)
BESSEL = ["i0e", "i1", "i1e", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0"]
BESSEL += ["modified_bessel_k1", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1"]
OSCILLATING = ["bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"]
ENDS = [0.0, 1e-300, 1e-8, 1.0, 4.0, 25.0, 700.0, 1e5, float("inf"), -float("inf"), float("nan")]


def points(dtype: torch.dtype) -> Tensor:
    line = torch.cat([torch.linspace(-60, 60, 961), torch.linspace(-6, 6, 481)])
    return torch.cat([line.to(dtype), torch.tensor(ENDS, dtype=dtype)])


def check(function: Callable[..., Tensor], *inputs: Tensor, rtol: float, atol: float) -> None:
    torch._dynamo.reset()
    bridge.reset()
    got = torch.compile(function, backend="deepseek")(*inputs)
    torch.testing.assert_close(got, function(*inputs), rtol=rtol, atol=atol, equal_nan=True)
    assert not bridge.explain().eager_ops, bridge.explain()


@pytest.mark.parametrize("name", FAMILIES)
def test_polynomials(name: str) -> None:
    polynomial = getattr(torch.special, name)
    x = torch.cat([torch.linspace(-2, 2, 41), torch.tensor([float("nan")])]).double().unsqueeze(1)
    check(lambda x, n: polynomial(x, n), x, torch.arange(-1, 12), rtol=1e-12, atol=1e-12)
    check(lambda x: polynomial(x, 3), x[:-1].float(), rtol=1e-4, atol=1e-5)  # PyTorch loses the NaN
    check(lambda n: polynomial(0.25, n), torch.tensor([0, 5, 130, 2]), rtol=1e-5, atol=1e-4)
    large = torch.tensor([-10701, -55, -2, 3, 55, 10701]).unsqueeze(1)  # infinite, then NaN
    check(lambda x, n: polynomial(x, n), large, torch.tensor([2, 11, 23, 40, 300]), rtol=1e-4, atol=0.0)
    check(lambda x, n: polynomial(x, n), large.double(), torch.tensor([88, 511]), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_degrees_that_are_no_integers(name: str) -> None:
    """As C converts them: none of these is positive."""
    polynomial = getattr(torch.special, name)
    for dtype in (torch.float64, torch.float32):
        degrees = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, 2.7, -0.5], dtype=dtype)
        check(lambda n: polynomial(0.5, n), degrees, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polygamma_at_its_poles_and_of_no_floats(order: int) -> None:
    ends = [0.0, 1e-30, 0.3, 1.0, 7.0, float("inf"), float("nan")]
    check(lambda x: torch.polygamma(order, x), torch.tensor(ends), rtol=1e-5, atol=0.0)
    check(lambda x: torch.polygamma(order, x), torch.tensor([True, False]), rtol=1e-5, atol=0.0)
    if order > 1:  # ATen's sine of pi x is not quite 0 at whole numbers
        check(lambda x: torch.polygamma(order, x), torch.arange(-3, 3), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", BESSEL)
def test_bessel_functions(name: str) -> None:
    function = getattr(torch.special, name)
    check(lambda x: function(x), points(torch.float64), rtol=1e-13, atol=0.0)
    check(lambda x: function(x), torch.arange(-3, 9), rtol=1e-5, atol=0.0)


def test_bessel_functions_of_the_largest_numbers() -> None:
    """PyTorch's own are NaN, and 0 where scaled."""
    x = torch.tensor([torch.finfo(torch.float64).max, 1e300], dtype=torch.float64)
    for order in (0, 1):
        plain, scaled = (getattr(torch.special, f"i{order}{e}") for e in ("", "e"))
        assert torch.compile(lambda x, f=plain: f(x), backend="deepseek")(x).isinf().all()
        y = torch.compile(lambda x, f=scaled: f(x), backend="deepseek")(x)
        torch.testing.assert_close(y, (x / 2).rsqrt() / (2 * torch.pi**0.5), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("name", OSCILLATING)
def test_oscillating_bessel_functions(name: str) -> None:
    function = getattr(torch.special, name)
    x = points(torch.float32)
    check(lambda x: function(x), x[~(x.abs() > 1e4) | x.isinf()], rtol=2e-5, atol=2e-6)


def test_bessel_functions_of_float64_are_those_of_their_integral() -> None:
    """PyTorch's own are off by 5e-7 there."""
    from deepseek.torch import bessel

    x = torch.linspace(0.01, 60, 2001, dtype=torch.float64)
    angle = (torch.arange(400, dtype=torch.float64) + 0.5) * (torch.pi / 400)
    firsts, seconds = [], []
    for order in (0, 1):
        first, second = bessel._oscillating(order, x)
        integral = torch.cos(order * angle[:, None] - x * torch.sin(angle)[:, None]).mean(0)
        torch.testing.assert_close(first, integral, rtol=0.0, atol=1e-14)
        firsts.append(first)
        seconds.append(second)
    wronskian = firsts[1] * seconds[0] - firsts[0] * seconds[1]
    torch.testing.assert_close(wronskian, 2 / (torch.pi * x), rtol=1e-13, atol=0.0)


def ends(*values: float) -> Tensor:
    return torch.tensor([*values, float("inf"), -float("inf"), float("nan")], dtype=torch.float64)


def test_quantiles() -> None:
    p = torch.cat([torch.linspace(0, 1, 501).double(), torch.logspace(-300, -1, 300).double()])
    p = torch.cat([p, ends(-0.1, 1.1, 0.5)])
    check(torch.special.ndtri, p, rtol=1e-12, atol=1e-15)
    check(torch.erfinv, torch.cat([p, -p]), rtol=1e-13, atol=0.0)


def test_scaled_error_function() -> None:
    x = torch.cat([torch.linspace(-30, 60, 2001).double(), ends(1e10, 10.0)])
    check(torch.special.erfcx, x, rtol=1e-13, atol=0.0)
    check(torch.special.log_ndtr, x, rtol=1e-12, atol=1e-15)


def test_hurwitz_zeta() -> None:
    order = torch.tensor([-1, 0, 0.5, 1, 1.0001, 1.5, 2, 3, 4, 7.5, 30], dtype=torch.float64).unsqueeze(1)
    q = torch.cat([torch.linspace(-20, 20, 321).double(), torch.tensor([1e-8, 1e8]).double()])
    check(torch.special.zeta, order, q, rtol=1e-8, atol=0.0)
    check(torch.special.zeta, order, torch.full((1,), -float("inf"), dtype=q.dtype), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mantissas_and_exponents(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    x = torch.cat([points(dtype), torch.tensor([-0.0, tiny, -tiny / 4, 0.75, -2.0], dtype=dtype)])
    x = x[x.isfinite()]  # the exponent of those is C's to choose
    check(lambda x: torch.frexp(x)[0], x, rtol=0, atol=0)
    check(lambda x: torch.frexp(x)[1], x, rtol=0, atol=0)


def test_airy_function() -> None:
    x = torch.cat([torch.linspace(-60, 12, 2001).double(), torch.linspace(-8, 3, 501).double()])
    check(lambda x: torch.special.airy_ai(x), x.float(), rtol=2e-4, atol=5e-6)
    check(lambda x: torch.special.airy_ai(x), torch.tensor([50.0, 150.0, 1e4, float("nan")]), rtol=0, atol=0)
    check(lambda x: torch.special.spherical_bessel_j0(x), points(torch.float64)[:-4], rtol=1e-9, atol=1e-12)


def test_airy_function_meets_scipys() -> None:
    """PyTorch's own is off by 3e-6."""
    from deepseek.torch import bessel

    x = torch.linspace(-60, 12, 4001, dtype=torch.float64)
    wanted = torch.from_numpy(pytest.importorskip("scipy.special").airy(x.numpy())[0])
    torch.testing.assert_close(bessel._airy(x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions(name: str) -> None:
    function = getattr(torch.special, name)
    a = torch.cat([torch.logspace(-6, 3, 37).double(), ends(0.0, -1.0)]).unsqueeze(1)
    x = torch.cat([torch.logspace(-6, 3.2, 61).double(), ends(0.0, -1.0)])
    check(lambda a, x: function(a, x), a, x, rtol=1e-8, atol=1e-13)
    check(lambda a, x: function(a, x), a.float(), x.float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions_of_large_numbers(name: str) -> None:
    """From 1000 on, where the expansion begins; PyTorch has ten digits below 1e4."""
    function = getattr(torch.special, name)
    a = torch.tensor([999.0, 1000.0, 1e4, 1e6, 1e10, 1e14, 1e300], dtype=torch.float64).unsqueeze(1)
    x = a + torch.linspace(-4, 4, 33, dtype=torch.float64) * a.sqrt()  # where theirs is exact
    check(lambda a, x: function(a, x), a, x, rtol=1e-6, atol=5e-10)
    check(lambda a, x: function(a, x), a[2:], x[2:], rtol=1e-6, atol=1e-13)
    far = torch.tensor([1e-300, 0.5, 1.0, 2e300, 1e308], dtype=torch.float64)
    check(lambda a, x: function(a, x), a, far, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions_are_probabilities(name: str) -> None:
    a, x = torch.logspace(-12, 2, 57).double().unsqueeze(1), torch.logspace(-12, 2, 57).double()
    function = getattr(torch.special, name)
    y = torch.compile(lambda a, x: function(a, x), backend="deepseek")(a, x)
    assert bool(((y >= 0) & (y <= 1)).all())


def test_angles_of_any_size() -> None:
    x = torch.tensor([[1.0], [-1.3]], dtype=torch.float64) * 2.0 ** torch.arange(0, 1023, dtype=torch.float64)
    for function in (torch.sin, torch.cos, torch.tan, torch.sinc):
        check(lambda x, f=function: f(x), x, rtol=1e-15, atol=0.0)


def test_remainders_of_any_quotient() -> None:
    """Against Python's; PyTorch's own are NaN beside tiny divisors."""
    generator = torch.Generator().manual_seed(0)
    size = torch.randint(-1070, 1020, (2, 2000), generator=generator, dtype=torch.float64)
    x, d = (torch.randn(2, 2000, generator=generator, dtype=torch.float64) * 2.0**size).unbind()
    wanted = [math.fmod(a, b) for a, b in zip(x.tolist(), d.tolist(), strict=True)]
    torch._dynamo.reset()
    bridge.reset()
    got = torch.compile(lambda x, d: torch.fmod(x, d), backend="deepseek")(x, d)
    assert got.tolist() == wanted
    got = torch.compile(lambda d: torch.remainder(7.5, d), backend="deepseek")(d)
    assert got.tolist() == [7.5 % b for b in d.tolist()]
    assert not bridge.explain().eager_ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.bool])
def test_hashes(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 7).mul(9).to(dtype)
    for dim in ((), (1,), (-1, 0)):
        check(lambda x, dim=dim: torch.hash_tensor(x, dim).view(torch.int64), x, rtol=0, atol=0)
    check(lambda x: torch.hash_tensor(x, 1, keepdim=True).view(torch.int64), x, rtol=0, atol=0)
    check(lambda x: torch.hash_tensor(x[0, 0, 0]).view(torch.int64), x, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_common_divisors_and_multiples(dtype: torch.dtype) -> None:
    x = torch.arange(0, 100).to(dtype) if dtype is torch.uint8 else torch.arange(-50, 50).to(dtype)
    check(torch.gcd, x.unsqueeze(1), x, rtol=0, atol=0)
    check(torch.lcm, (x // 8).unsqueeze(1), x, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_neighbours(dtype: torch.dtype) -> None:
    tiny, inf = torch.finfo(dtype).smallest_normal, float("inf")
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, tiny, -tiny, 1e30, inf, -inf, float("nan")], dtype=dtype)
    check(torch.nextafter, x.unsqueeze(1), x, rtol=0, atol=0)


def test_places_that_are_drawn() -> None:
    pool = torch.nn.functional.fractional_max_pool2d
    x, samples = torch.rand(2, 3, 9, 8), torch.rand(2, 3, 2)

    def function(x: Tensor, samples: Tensor) -> Tensor:
        return torch.cat(
            [y.flatten() for y in pool(x, (2, 3), (4, 5), _random_samples=samples, return_indices=True)]
        )

    check(function, x, samples, rtol=0, atol=0)


def test_no_places_are_drawn() -> None:
    pool, samples = torch.nn.functional.fractional_max_pool3d, torch.rand(1, 1, 3)[:0]
    got = torch.compile(pool, backend="deepseek")(torch.rand(0, 1, 4, 5, 6), 2, 2, _random_samples=samples)
    assert got.shape == (0, 1, 2, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_whole_quotients(mode: str, dtype: torch.dtype) -> None:
    """Of quotients that round to a whole number, and of the ends."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(4000, generator=generator, dtype=torch.float64).to(dtype) + 0.1
    x = (y.double() * torch.randint(-40, 40, [4000], generator=generator)).to(dtype)
    inf, nan = float("inf"), float("nan")
    x = torch.cat([x, torch.tensor([1.0, -1.0, 0.0, inf, 3.0, -3.0, nan, 5.0], dtype=dtype)])
    y = torch.cat([y, torch.tensor([0.0, 0.0, 0.0, 2.0, inf, inf, 1.0, -2.0], dtype=dtype)])

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.div(x, y, rounding_mode=mode)

    got = torch.compile(function, backend="deepseek", fullgraph=True)(x, y)
    torch.testing.assert_close(got, function(x, y), rtol=0, atol=0, equal_nan=True)
