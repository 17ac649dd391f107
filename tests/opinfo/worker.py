"""Runs samples of PyTorch's operator database: reads tasks from stdin, one line of JSON each, and answers
each sample with a line.

A task is {"op": index in op_db, "dtype": name, "kind": "forward", "gradient" or "gradcheck", "each": samples
at most, "skip": how many of those are done}. The answers: {"total": samples of the op, "chosen": how many of
them run}, then for each of them {"status", "message"}. Statuses:

compiled   results agree (or torch.autograd.gradcheck finds no error) and every ATen op ran in pieces of ours
partly     results agree; PyTorch ran some ops, the message says which, or the graph broke
drawn      compiled whole but for draws of random numbers, which PyTorch's generator makes
left       the op has nothing to compare: no differentiable result, or eager PyTorch refuses the sample (or
           fails gradcheck itself, as at a kink), or Dynamo fails before any backend
wrong      a result that is neither eager's nor what eager gives in float64, nor about as close to that
error      eager PyTorch has a result and the compiled function raises
"""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import deepseek.torch as bridge
import torch
from torch._dynamo.exc import InternalTorchDynamoError
from torch._dynamo.utils import counters
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.testing._internal import common_methods_invocations as op_database
from torch.utils import _pytree as pytree

op_db = op_database.op_db
# Without it Dynamo keeps ops whose results are as long as the data say (unique, nonzero) to itself.
torch._dynamo.config.capture_dynamic_output_shape_ops = True
torch._functorch.config.donated_buffer = False  # gradcheck goes backward more than once
# Some ops of the database set the seed inside the function that is compiled, which Dynamo cannot trace; here
# the seed is set before each call.
op_database.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)

# Results are whatever memory holds: dtype and shape alone are compared.
UNDEFINED = frozenset(
    ["empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"]
)
# Where `dim` stands among the arguments of ops that give positions; among equal elements any one is right.
POSITIONS = {"argsort": 0, "sort": 0, "topk": 1, "kthvalue": 1, "mode": 0, "median": 0, "nanmedian": 0}
# Relative and absolute error against float64 (or, exact for integers, against eager).
TOLERANCE = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (2e-4, 2e-5),
    torch.bfloat16: (2e-2, 1e-2),
    torch.float16: (4e-3, 1e-3),
}
COMPLEX_PART = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
WORSE = 4.0  # how many times eager's own error is right, where its result is far from float64's as well
SLOW, LARGE = 60, 10_000  # elements of a sample that gradcheck takes one by one, and at all
MESSAGE = 300  # characters


@dataclass
class Call:
    """One sample as a function of its tensors."""

    op: Any
    sample: Any

    def __post_init__(self) -> None:
        self.leaves, self.structure = pytree.tree_flatten(
            (self.sample.input, self.sample.args, self.sample.kwargs)
        )
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, torch.Tensor)]
        self.tensors = [self.leaves[i] for i in self.places]

    def __call__(self, function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> list[Any]:
        """The results, made comparable where they are known up to a choice (signs of singular vectors)."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        x, args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        torch.manual_seed(0)
        result = function(x, *args, **kwargs)
        return pytree.tree_leaves(self.sample.output_process_fn_grad(result))


def fresh(tensors: Sequence[torch.Tensor], wide: bool) -> list[torch.Tensor]:
    """Leaves with the same values, layout and need of a gradient; in float64 where `wide`."""
    copies = []
    for tensor in tensors:
        copy = tensor.detach()
        if wide and copy.is_floating_point():
            copy = copy.double()
        elif wide and copy.is_complex():
            copy = copy.to(torch.complex128)
        elif copy.layout is torch.strided:
            copy = torch.empty_like(copy).copy_(copy) if copy.is_contiguous() else copy.clone()
        copies.append(copy.requires_grad_(tensor.requires_grad))
    return copies


def evaluate(
    call: Call, function: Callable[..., Any], gradient: bool, wide: bool = False
) -> list[Any] | None:
    """Results, or gradients of the inputs for fixed gradients of the results; None without any."""
    tensors = fresh(call.tensors, wide)
    results = call(function, tensors)
    if not gradient:
        return results
    results = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
    inputs = [t for t in tensors if t.requires_grad]
    if not results or not inputs:
        return None
    generator = torch.Generator().manual_seed(1)
    dys = []
    for result in results:
        dy = torch.rand(result.shape, generator=generator, dtype=torch.float64)
        dys.append(dy.to(result.dtype))
    return list(torch.autograd.grad(results, inputs, dys, allow_unused=True))


def agree(got: Any, want: Any, dtype: torch.dtype) -> bool:
    if not isinstance(want, torch.Tensor):
        return bool(got == want) or (got != got and want != want)
    if want.layout is not torch.strided:
        got, want = got.to_dense(), want.to_dense()
    if got.shape != want.shape:
        return False
    rtol, atol = TOLERANCE.get(COMPLEX_PART.get(dtype, dtype), (0, 0))
    if dtype.is_complex:
        got, want = got.to(torch.complex128), want.to(torch.complex128)
    elif dtype.is_floating_point:
        got, want = got.double(), want.double()
        finite = want[want.isfinite()]
        atol *= max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    return bool(torch.isclose(got, want.to(got.dtype), rtol=rtol, atol=atol, equal_nan=True).all())


def settled(call: Call, results: list[Any]) -> list[Any]:
    """The results with positions replaced by the elements there, where equal elements leave a choice."""
    x, args, kwargs = call.sample.input, call.sample.args, call.sample.kwargs
    place = POSITIONS.get(call.op.name)
    if place is None or x.dim() == 0 or kwargs.get("stable"):
        return results
    if len(results) == 1 and call.op.name != "argsort":
        return results  # values alone
    dim = kwargs.get("dim", args[place] if len(args) > place else -1)
    index = results[-1]
    if index.dim() < x.dim():
        index = index.unsqueeze(dim)
    return [*results[:-1], x.gather(dim, index)]


def shared(x: torch.Tensor, gradient: torch.Tensor, dim: int) -> torch.Tensor:
    """The gradient with each element's replaced by the sum over the elements equal to it along `dim`."""
    values, order = x.detach().movedim(dim, -1).sort(stable=True)
    differs = torch.zeros_like(order)
    differs[..., 1:] = values[..., 1:] != values[..., :-1]
    group = differs.cumsum(-1)
    sorted_gradient = gradient.double().movedim(dim, -1).gather(-1, order)
    sums = torch.zeros_like(sorted_gradient).scatter_add(-1, group, sorted_gradient).gather(-1, group)
    return torch.empty_like(sums).scatter(-1, order, sums).movedim(-1, dim).to(gradient.dtype)


def settled_gradients(call: Call, gradients: list[Any]) -> list[Any]:
    """The gradients, shared where equal elements leave a choice of whose they are."""
    x, args, kwargs = call.sample.input, call.sample.args, call.sample.kwargs
    place = POSITIONS.get(call.op.name)
    if (place is None and call.op.name != "msort") or x.dim() == 0 or x.numel() == 0:
        return gradients
    if place is None:
        return [shared(x, gradients[0], dim=0)]
    if "dim" not in kwargs and len(args) <= place and call.op.name in ("median", "nanmedian"):
        return [shared(x.reshape(-1), gradients[0].reshape(-1), dim=0)]
    return [shared(x, gradients[0], kwargs.get("dim", args[place] if len(args) > place else -1))]


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest error; infinite where there is none, as with NaN."""
    distance = (got.to(exact.dtype) - exact).abs()
    return float(distance.max()) if distance.numel() and bool(distance.isfinite().all()) else math.inf


def difference(got: list[Any], want: list[Any], wide: Callable[[], list[Any] | None]) -> str:
    """Says how `got` differs from eager's results and from those in float64; empty where it is right."""
    if len(got) != len(want):
        return f"{len(got)} results, not {len(want)}"
    exact: list[Any] | None = None
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if w is None or g is None:
            if g is not w and float((g if w is None else w).abs().sum()) != 0:  # an unused input's gradient
                return f"result {i} is {type(g).__name__}, not {type(w).__name__}"
            continue
        if isinstance(w, torch.Tensor):
            if g.dtype != w.dtype:
                return f"result {i} is {g.dtype}, not {w.dtype}"
            if g.shape != w.shape:
                return f"result {i} is {list(g.shape)}, not {list(w.shape)}"
        dtype = w.dtype if isinstance(w, torch.Tensor) else torch.float64
        if agree(g, w, dtype):
            continue
        if exact is None:
            try:
                exact = wide() or []
            except Exception:
                exact = []
        if len(exact) == len(got) and isinstance(exact[i], torch.Tensor):
            own = error(g, exact[i])
            if agree(g, exact[i], dtype) or (own < math.inf and own <= WORSE * error(w, exact[i])):
                continue
        return f"result {i}: {str(g)[:100]}, not {str(w)[:100]}"
    return ""


def compiled(function: Callable[..., Any], backend: str = "deepseek") -> Callable[..., Any]:
    """`function` compiled, and nothing else."""
    torch._dynamo.reset()
    counters.clear()
    bridge.reset()

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    options = {"threads": 1} if backend == "deepseek" else None
    return torch.compile(call, backend=backend, dynamic=False, options=options)


def check(op: Any, sample: Any, gradient: bool) -> tuple[str, str]:
    call = Call(op, sample)
    try:
        want = evaluate(call, op.op, gradient)
    except Exception as error:
        return "left", f"eager: {error}"
    if want is None:
        return "left", "nothing differentiable"
    try:
        got = evaluate(call, compiled(op.op), gradient)
    except InternalTorchDynamoError as error:
        try:
            evaluate(call, compiled(op.op, "eager"), gradient)
        except InternalTorchDynamoError as own:
            return "left", f"Dynamo, whatever the backend: {own}"
        return "error", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    assert got is not None
    if op.name in UNDEFINED:
        got, want = ([(r.dtype, r.shape) for r in results] for results in (got, want))
    settle = settled_gradients if gradient else settled

    def exact() -> list[Any] | None:
        wide = evaluate(call, op.op, gradient, wide=True)
        return settle(call, wide) if gradient and wide else wide

    wrong = difference(settle(call, got), settle(call, want), exact)
    return ("wrong", wrong) if wrong else who_ran()


def finite_differences(call: Call, function: Callable[..., Any]) -> None:
    """Raises where gradients differ from finite differences; see torch.autograd.gradcheck.

    From SLOW elements on along random directions. Gradients are ours; each step is a call of the function.
    """
    op = call.op
    tensors = fresh(call.tensors, wide=False)
    inputs = [t for t in tensors if t.requires_grad]

    @functools.wraps(op.op)  # some wrappers look at the name
    def named(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def results(*inputs: torch.Tensor) -> list[torch.Tensor]:
        given = iter(inputs)
        found = call(
            functools.partial(op.gradcheck_wrapper, named),
            [next(given) if t.requires_grad else t for t in tensors],
        )
        return [r for r in found if isinstance(r, torch.Tensor) and r.requires_grad]

    fast = bool(op.gradcheck_fast_mode) or sum(t.numel() for t in inputs) >= SLOW
    tolerance = op.gradcheck_nondet_tol
    gradcheck(results, inputs, nondet_tol=tolerance, check_undefined_grad=False, fast_mode=fast)


def check_differences(op: Any, sample: Any) -> tuple[str, str]:
    call = Call(op, sample)
    if evaluate(call, op.op, gradient=True) is None:
        return "left", "nothing differentiable"
    try:
        finite_differences(call, compiled(op.op))
    except Exception as error:
        function = compiled(op.op, "eager") if isinstance(error, InternalTorchDynamoError) else op.op
        try:
            finite_differences(call, function)
        except Exception as own:
            return "left", f"eager: {own}"
        wrong = isinstance(error, GradcheckError)
        return "wrong" if wrong else "error", f"{type(error).__name__}: {error}"
    return who_ran()


def who_ran() -> tuple[str, str]:
    """Whether the last function compiled ran in pieces of ours, and what else."""
    explanation = bridge.explain()
    if explanation.draws and not explanation.eager_ops and not counters["graph_break"]:
        return "drawn", ", ".join(sorted(explanation.draws))
    if explanation.eager_ops:
        reasons = {f"{name} ({why})" for record in explanation.records for name, why in record.eager}
        return "partly", ", ".join(sorted(reasons))
    if counters["graph_break"] or not explanation.records:
        return "partly", "graph break: " + " ".join(" ".join(counters["graph_break"]).split()[:20])
    return "compiled", ""


def answer(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def elements(sample: Any) -> int:
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    return sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))


def run(task: dict[str, Any]) -> None:
    op = op_db[task["op"]]
    dtype, kind = getattr(torch, task["dtype"]), task["kind"]
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=kind != "forward"))
    if kind == "gradcheck":
        samples = [sample for sample in samples if elements(sample) <= LARGE]
    answer_each(
        task,
        samples,
        lambda sample: (
            check_differences(op, sample) if kind == "gradcheck" else check(op, sample, kind == "gradient")
        ),
    )


def answer_each(
    task: dict[str, Any], samples: Sequence[Any], verdict: Callable[[Any], tuple[str, str]]
) -> None:
    """Chooses as many samples as the task wants, spread over all, and answers for each but those to skip."""
    each = task["each"] or len(samples)
    if len(samples) > each:  # the middles of equal parts of the list
        chosen = [samples[(2 * i + 1) * len(samples) // (2 * each)] for i in range(each)]
    else:
        chosen = samples
    answer(total=len(samples), chosen=len(chosen))
    for sample in chosen[task["skip"] :]:
        try:
            status, message = verdict(sample)
        except Exception as error:
            status, message = "error", f"the check: {type(error).__name__}: {error}"
        answer(status=status, message=" ".join(message.split())[:MESSAGE])


def main(run: Callable[[dict[str, Any]], None] = run) -> None:
    """Runs the tasks that come line by line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for line in sys.stdin:
        run(json.loads(line))


if __name__ == "__main__":
    main()
