"""Connectionist temporal classification (Graves et al., 2006): its forward recursion, a step at a time.

Its gradient of log-probabilities is PyTorch's, that of probabilities which a softmax has made: exp(log_probs)
minus the labels' posterior probability at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey

from deepseek.torch.losses import MEAN
from deepseek.torch.traced import traced

aten = torch.ops.aten

LONGEST = 64  # steps; longer sequences, whose graphs would compile for a minute, keep PyTorch's kernel
# The logarithm of no probability, finite so that no difference is NaN; losses near -NEVER are infinite.
NEVER = -1e30


def _path(targets: Tensor, lengths: Tensor, longest: int, blank: int) -> Tensor:
    """Each target's labels with blanks around them, [batch, 2 longest + 1]."""
    place = torch.arange(longest)
    if targets.dim() == 1:  # one after the other
        place = (lengths.cumsum(0) - lengths).unsqueeze(1) + place
        rows = targets[place.clamp(max=max(targets.shape[0] - 1, 0))] if longest else place
    else:
        rows = targets[:, :longest]
    labels = torch.where(torch.arange(longest) < lengths.unsqueeze(1), rows, blank)
    pairs = torch.stack([torch.full_like(labels, blank), labels], 2).flatten(1)
    return torch.nn.functional.pad(pairs, (0, 1), value=blank)


def _log_sum(terms: Sequence[Tensor]) -> Tensor:
    most = terms[0].detach()
    for term in terms[1:]:
        most = torch.maximum(most, term.detach())
    total = torch.exp(terms[0] - most)
    for term in terms[1:]:
        total = total + torch.exp(term - most)
    return most + torch.log(total)


def _later(alpha: Tensor, states: int) -> Tensor:
    """What is known of each state, at the state so many further."""
    return torch.nn.functional.pad(alpha, (states, 0), value=NEVER)[:, : alpha.shape[1]]


def _losses(log_probs: Tensor, path: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """-log of the probability of all ways through each path, [batch]; near -NEVER where there is none."""
    emitted = log_probs.gather(2, path.expand(log_probs.shape[0], *path.shape)).clamp(min=NEVER)
    state = torch.arange(path.shape[1])
    before = torch.nn.functional.pad(path, (2, 0), value=-1)[:, : path.shape[1]]
    jumps = (state % 2 == 1) & (path != before)  # over the blank between two labels that differ
    alpha = torch.where(state < 2, emitted[0], NEVER)
    for t in range(1, log_probs.shape[0]):
        ways = [alpha, _later(alpha, 1), torch.where(jumps, _later(alpha, 2), NEVER)]
        alpha = torch.where((t < steps).unsqueeze(1), _log_sum(ways) + emitted[t], alpha)
    last = (2 * lengths).unsqueeze(1)
    label = torch.where(last > 0, alpha.gather(1, (last - 1).clamp(min=0)), NEVER)
    return -_log_sum([alpha.gather(1, last), label]).squeeze(1)


def _ctc(
    log_probs: Tensor, path: Tensor, steps: Tensor, lengths: Tensor, reduction: int, zero_infinity: bool
) -> Tensor:
    losses = _losses(log_probs, path, steps, lengths)
    empty = steps == 0
    losses = torch.where(empty, torch.where(lengths == 0, 0.0, -NEVER).to(losses.dtype), losses)
    lost = losses > -NEVER / 2
    counted = torch.arange(log_probs.shape[0]).unsqueeze(1) < steps
    total = torch.where(counted.unsqueeze(2), log_probs.exp(), 0).sum((0, 2))
    nothing = torch.zeros_like(total)
    # Infinity has NaN as its gradient.
    infinite = nothing if zero_infinity else -torch.log(torch.where(lost, total * 0, nothing + 1))
    losses = torch.where(lost, infinite, losses + (total - total.detach()))
    if reduction == MEAN:
        return (losses / lengths.clamp(min=1)).mean()
    return losses if reduction == 0 else losses.sum()


def _traced(op: Any, *args: Any) -> Any:
    log_probs, targets, steps, lengths, blank, reduction, zero_infinity = args
    sizes = [*log_probs.shape, *targets.shape]
    if not isinstance(steps, Tensor):
        sizes += [*steps, *lengths]
    if (
        any(not isinstance(size, int) for size in sizes)
        or log_probs.dtype not in (torch.float32, torch.float64)
        or not 0 < log_probs.shape[0] <= LONGEST
        or log_probs.dim() not in (2, 3)
        or 0 in (log_probs.numel(), targets.numel())
        or targets.dim() not in (1, 2)
        or not 0 <= blank < log_probs.shape[-1]
    ):
        return op._op_dk(DispatchKey.CompositeImplicitAutograd, *args)
    batched = log_probs.dim() == 3
    rows = log_probs if batched else log_probs.unsqueeze(1)
    longest = targets.shape[-1]
    if isinstance(steps, Tensor):
        steps, lengths = steps.reshape(-1).to(torch.int64), lengths.reshape(-1).to(torch.int64)
    else:
        longest = min(longest, max(lengths, default=0))
        steps, lengths = torch.tensor(steps), torch.tensor(lengths)
    batch = rows.shape[1]
    if steps.shape[0] != batch or lengths.shape[0] != batch or (targets.dim() == 2 and len(targets) != batch):
        raise RuntimeError("input_lengths, target_lengths and targets must be of size batch_size")
    torch._assert_async(
        ((steps >= 0) & (steps <= rows.shape[0])).all(),
        f"Expected input_lengths to be at most {rows.shape[0]}",
    )
    whole = lengths.sum() if targets.dim() == 1 else lengths.max()
    torch._assert_async(
        (lengths >= 0).all() & (whole <= targets.shape[-1]), "Expected tensor to have size for target_lengths"
    )
    path = _path(targets.to(torch.int64), lengths, longest, blank)
    loss = _ctc(rows, path, steps, lengths, reduction, zero_infinity)
    return loss if batched or loss.dim() == 0 else loss.squeeze(0)


@traced(aten.ctc_loss.IntList)
def ctc_loss_of_numbers(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    blank: int = 0,
    reduction: int = MEAN,
    zero_infinity: bool = False,
) -> Any:
    args = (log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
    return _traced(aten.ctc_loss.IntList, *args)


@traced(aten.ctc_loss.Tensor)
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: int = MEAN,
    zero_infinity: bool = False,
) -> Any:
    args = (log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
    return _traced(aten.ctc_loss.Tensor, *args)
