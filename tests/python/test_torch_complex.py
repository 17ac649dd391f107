"""Complex tensors, which are compiled as pairs of real ones, and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor, fft

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda z, w: z + 2 * w.conj(),
    "numbers": lambda z, w: (z + (2 - 1j)) * (1 + 3j) / (w - 1j) - 2j,
    "product": lambda z, w: z * w,
    "with a real one": lambda z, w: z * w.real.contiguous() - w.imag / z,
    "quotient": lambda z, w: z / w + z.reciprocal(),
    "parts": lambda z, w: (z.real * w.imag, z.abs(), w.angle()),
    "functions": lambda z, w: (z.exp(), w.log(), z.sqrt(), torch.sgn(w), z**3),
    "matrices": lambda z, w: z @ w.mH,
    "mixed matrices": lambda z, w: torch.einsum("bij,bkj->bik", z, w.real.contiguous().to(z.dtype)),
    "views": lambda z, w: torch.cat([z.mT, w.flip(1)[:, ::2].reshape(2, 4, 2).expand(2, 4, 2)], 2),
    "pieces": lambda z, w: torch.stack([*z.unbind(1), *w.split([1, 3], 1)[0].unbind(1)], 1),
    "rows": lambda z, w: z[:, torch.tensor([0, 2, 2])].sum(1) + w.mean((1,), keepdim=True),
    "choice": lambda z, w: torch.where(z.real > 0, z, w),
    "as real": lambda z, w: (torch.view_as_real(z), torch.view_as_complex(torch.view_as_real(w) * 2)),
    "made": lambda z, w: (torch.complex(z.real, w.imag), torch.polar(z.abs(), w.real)),
    "spectra": lambda z, w: (fft.fft(z), fft.ifft2(w, norm="ortho"), fft.fftn(z, norm="forward")),
    "real spectra": lambda z, w: (fft.rfft(z.real), fft.rfft2(w.imag), fft.ihfft(z.real, n=7)),
    "from half": lambda z, w: (fft.irfft(z), fft.irfft(z, n=7), fft.irfft2(w), fft.hfft(z, n=5)),
    "filter": lambda z, w: fft.irfft2(fft.rfft2(z.real) * w[..., :3], s=(4, 4)),
    "short time": lambda z, w: torch.stft(z.real.reshape(2, 16), 8, 4, return_complex=True, onesided=True),
}


def pair(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, w = (torch.randn(2, 4, 4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return torch.view_as_complex(z).to(dtype), torch.view_as_complex(w).to(dtype)


def results(function: Callable[..., Any], *tensors: Tensor) -> list[Tensor]:
    """What the function gives, and the gradients of its inputs."""
    inputs = [tensor.detach().requires_grad_() for tensor in tensors]
    given = function(*inputs)
    given = list(given) if isinstance(given, tuple) else [given]
    loss = sum((y * torch.linspace(-1, 1, y.shape[-1])).abs().square().sum() for y in given)
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [*given, *(gradient for gradient in gradients if gradient is not None)]


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    bridge.reset()
    return torch.compile(function, backend="deepseek", fullgraph=True, **options)


def check(function: Callable[..., Any], *tensors: Tensor) -> None:
    ours, theirs = results(compiled(function), *tensors), results(function, *tensors)
    assert not bridge.explain().eager_ops, bridge.explain()
    for got, want in zip(ours, theirs, strict=True):
        scale = max(1.0, float(want.detach().abs().max()))
        tolerance = 1e-9 if want.dtype in (torch.complex128, torch.float64) else 2e-5
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pairs(name: str, dtype: torch.dtype) -> None:
    check(FUNCTIONS[name], *pair(dtype))


@pytest.mark.parametrize("size", [1, 2, 3, 64, 127, 128, 129, 360, 509, 1024])
def test_lengths(size: int) -> None:
    z = torch.randn(3, size, dtype=torch.complex128)
    check(lambda z: (fft.fft(z), fft.irfft(fft.rfft(z.real), n=size)), z)


def test_conjugated_inputs_and_whole_numbers() -> None:
    z, _ = pair(torch.complex64)
    function = compiled(lambda z, x: z * 2 + fft.fft(x))
    x = torch.arange(4)
    torch.testing.assert_close(function(z.conj(), x), z.conj() * 2 + fft.fft(x))
    assert not bridge.explain().eager_ops


def test_what_has_no_rule_runs_in_pytorch() -> None:
    z, w = pair(torch.complex64)

    def function(z: Tensor, w: Tensor) -> Tensor:
        return (z * w).tan() * w

    torch.testing.assert_close(compiled(function)(z, w), function(z, w))
    assert list(bridge.explain().eager_ops) == ["aten.tan.default"]
    z = torch.randn(2, 2053, dtype=torch.complex64)  # a prime number
    torch.testing.assert_close(compiled(fft.fft)(z), fft.fft(z))
    assert list(bridge.explain().eager_ops) == ["aten._fft_c2c.default"]


def test_symbolic_sizes_run_in_pytorch() -> None:
    function = compiled(lambda z, w: fft.fft(z) * w, dynamic=True)
    z, w = pair(torch.complex64)
    for size in (4, 3, 2):
        torch.testing.assert_close(function(z[:, :size], w[:, :size]), fft.fft(z[:, :size]) * w[:, :size])
