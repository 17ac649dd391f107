"""`deepseek.precision`: what is compiled within computes and stores in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from deepseek.errors import invalid

NAMES = ("fp32", "bf16", "fp16")

CURRENT: ContextVar[str | None] = ContextVar("precision", default=None)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """What `torch.compile(..., backend="deepseek")` compiles for calls made within.

    "bf16": parameters, their gradients, inputs and results stay float32. Contractions multiply bfloat16 and
    sum in float32; what kernels hand to each other, and what the forward pass keeps for the backward pass, is
    stored in bfloat16, statistics and other small tensors apart. "fp16": the same in float16, with
    contractions in float32; gradients beyond 65504 become infinite and small ones 0, so scale the loss
    (`torch.amp.GradScaler("cpu")`). "fp32": all in float32.

    A function called under two precisions is compiled for each. A backward pass has the precision of its
    forward pass. What runs in PyTorch is not touched; `torch.autocast` may be used as well or instead.
    """
    if name not in NAMES:
        raise invalid("precision", " or ".join(map(repr, NAMES)), repr(name))
    token = CURRENT.set(name)
    try:
        yield
    finally:
        CURRENT.reset(token)


def current() -> str | None:
    """The innermost `precision`, None outside of all."""
    return CURRENT.get()
