"""`torch.compile(model, backend="deepseek")`: AOT Autograd in front, our compiler behind, for inference
and training.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.source import GlobalStateSource
from torch._functorch._aot_autograd.schemas import SerializableAOTDispatchCompiler
from torch._guards import Guard, TracingContext
from torch.utils._python_dispatch import _disable_current_modes

from deepseek import Executable, _core, precisions
from deepseek.compiler import compile_in_place
from deepseek.errors import invalid
from deepseek.specialized import Specializations
from deepseek.torch import cached, masked, pairs, report, saved
from deepseek.torch.cached import Compiled
from deepseek.torch.expansion import inline, unroll
from deepseek.torch.library import decompositions
from deepseek.torch.nodes import Refused, source_of
from deepseek.torch.pairs import BORDERS
from deepseek.torch.partition import (
    VALUE_CHECKS,
    Island,
    Step,
    clean,
    drop_checks,
    is_draw,
    is_front,
    mark_refused,
    op_of,
    refuse,
    settle_numbers,
    split,
)
from deepseek.torch.piece import Piece, Run
from deepseek.torch.program import Program
from deepseek.torch.recurrent import whole_layers
from deepseek.torch.translate import translate
from deepseek.torch.writes import may_stay, places, take_writes


@dataclass(frozen=True)
class Options:
    """What `torch.compile(..., options={...})` may say."""

    threads: int | None = None  # PyTorch's number when None
    # As in deepseek.compile. None: what the innermost deepseek.precision says, "fp32" outside of all.
    precision: str | None = None
    storage: str | None = None
    tune: str = "fast"  # as in deepseek.compile
    # As in deepseek.compile. None: RTOL.
    rtol: float | None = None
    freeze: bool = (
        True  # keep what derives from parameters (packed weights) between calls of an inference graph
    )
    # As in deepseek.compile, of each graph. Such a graph is not kept in PyTorch's cache on disk.
    specialize: int = 0
    # Of what a forward pass keeps for its backward pass, at most so many bytes, or this part (a float up to
    # 1) of what it keeps by itself; the rest is computed again.
    memory_budget: float | None = None


# Of a training step less than of inference: batch norms over few values, and derivatives that jump as ReLU's
# does, make large errors of small ones.
RTOL = {"inference": 1e-5, "forward": 1e-6, "backward": 1e-6}


def compile_graph(
    module: fx.GraphModule, example_inputs: Sequence[Any], kind: str, options: Options
) -> Compiled:
    """Compiles one graph from AOT Autograd. `kind`: "inference", "forward" or "backward"."""
    with (
        _disable_current_modes()
    ):  # AOT Autograd calls compilers under its fake-tensor mode; constants are real
        return _compile_graph(module, kind, options)


def _compile_graph(module: fx.GraphModule, kind: str, options: Options) -> Compiled:
    graph = module.graph
    inline(graph)
    _prepare_inner(module)
    written = take_writes(graph)
    unroll(graph)
    pairs.rewrite(graph)
    clean(graph)
    _check_functional(graph)
    parameters = _parameters(graph) if kind == "inference" and options.freeze else set()
    parameters -= set(written)
    refused = mark_refused(graph)
    if kind == "backward":
        _allow_keeping()
    record = report.Record(kind)
    steps, pieces = _compile_islands(module, refused, parameters, written, kind, options, record)
    for node in (step for step in steps if isinstance(step, fx.Node) and step in refused):
        if is_draw(node):
            record.draws[str(op_of(node))] += 1
        elif op_of(node) in VALUE_CHECKS:
            record.checks[str(op_of(node))] += 1
        elif node.target is not operator.getitem and not is_front(node) and node.target not in BORDERS:
            record.add_eager(str(op_of(node)), refused[node])
    report.RECORDS.append(record)
    visible = _count_visible_outputs(graph, kind, len(written))
    program = Program(module, steps, pieces, visible, written)
    return Compiled(program.source, program.constants, record)


def _prepare_inner(module: fx.GraphModule) -> None:
    """Makes graphs within the graph ready, in a form that PyTorch may run as well."""
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule) and inner is not module:
            drop_checks(inner.graph)
            unroll(inner.graph)
            inner.recompile()


def _allow_keeping() -> None:
    """PyTorch refuses to keep a graph (retain_graph) whose backward pass may write over what it is given.
    Ours does not.
    """
    context = TracingContext.try_get()
    if context is not None and context.fw_metadata is not None and context.fw_metadata.bw_donated_idxs:
        context.fw_metadata.bw_donated_idxs.clear()


def _check_functional(graph: fx.Graph) -> None:
    """AOT Autograd takes writes out of a graph; steps would see them in another order."""
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            raise invalid(str(node.target), "an op that leaves its arguments", "writes", source_of(node))


def _compile_islands(
    module: fx.GraphModule,
    refused: dict[fx.Node, str],
    parameters: set[fx.Node],
    written: list[fx.Node],
    kind: str,
    options: Options,
    record: report.Record,
) -> tuple[list[Step], dict[int, Piece]]:
    """Splits the graph and compiles its islands; a node that proves untranslatable goes to PyTorch."""
    while True:
        steps = split(module.graph, refused)
        islands = [step for step in steps if isinstance(step, Island)]
        updates = places(module.graph, steps, written)
        try:
            translations = [translate(island, module, parameters) for island in islands]
        except Refused as error:
            if not settle_numbers(error.node, module.graph):
                refuse(error.node, error.reason, refused)
            continue
        pieces = {}
        threads = options.threads or torch.get_num_threads()
        for island, translation in zip(islands, translations, strict=True):
            stored = updates.get(id(island), [])
            compiled = functools.partial(
                compile_in_place,
                updates=stored,
                threads=threads,
                precision=options.precision or "fp32",
                storage=options.storage or "fp32",
                tune=options.tune,
                rtol=options.rtol or RTOL[record.kind],
            )
            executable = compiled(translation.graph)
            held = [i for i, node in enumerate(island.inputs) if node in parameters]
            unsettled = [i for i, node in enumerate(island.inputs) if _may_be_negated(node, kind)]
            special = _specializations(translation.graph, options.specialize, compiled)
            piece = pieces[id(island)] = Piece(executable, held, unsettled, special, stored)
            record.add_piece(len(island.nodes), executable, piece.specializations)
        return steps, pieces


def _specializations(
    graph: _core.Graph, after: int, compiled: Callable[[_core.Graph], Executable]
) -> Callable[[Callable[[Executable], Run]], Specializations[Run]] | None:
    """As a Piece takes it."""
    if not after or all(isinstance(size, int) for value in graph.inputs for size in value.shape):
        return None
    return lambda run_of: Specializations(graph, after, lambda bound: run_of(compiled(bound)))


def _may_be_negated(node: fx.Node, kind: str) -> bool:
    """Whether a tensor may be a view with the opposite sign of what its memory holds. Dynamo's guards keep
    it as it was traced, but for the gradients that a backward pass is given.
    """
    return (kind == "backward" and node.op == "placeholder" and "tangent" in node.name) or bool(
        node.meta["val"].is_neg()
    )


def _parameters(graph: fx.Graph) -> set[fx.Node]:
    """Inputs that AOT Autograd knows to be a module's parameters and buffers."""
    context = torch._guards.TracingContext.try_get()
    if context is None or context.fw_metadata is None:
        return set()
    static = set(context.fw_metadata.static_input_indices)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    return {
        node
        for i, node in enumerate(placeholders)
        if i in static and isinstance(node.meta.get("val"), torch.Tensor)
    }


def _count_visible_outputs(graph: fx.Graph, kind: str, written: int) -> int:
    """How many of the outputs reach the user or AOT Autograd's view replay; the rest is saved for the
    backward pass, or `written`.
    """
    output = next(node for node in graph.nodes if node.op == "output")
    count = len(output.args[0]) - written
    context = torch._guards.TracingContext.try_get()
    if kind != "forward" or context is None or context.fw_metadata is None:
        return count
    return min(count, int(context.fw_metadata.num_forward_returns))


def _within(options: Options) -> Options:
    """The options under the precision in which the user's call is made; another one compiles anew."""
    name = precisions.current()
    context = TracingContext.try_get()
    if context is not None:

        def add(builder: Any, guard: Guard) -> None:
            holds = [f"deepseek.precision == {name!r}"]
            current = precisions.CURRENT.get  # called at each call of what is compiled
            builder.guard_manager.root.add_lambda_guard(lambda _: current() == name, holds, guard.user_stack)

        context.guards_context.dynamo_guards.add(Guard(GlobalStateSource(), add))
    if name is None:
        return options
    multiplied = "bf16" if name == "bf16" else "fp32"
    return replace(options, precision=options.precision or multiplied, storage=options.storage or name)


STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def backend(module: fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Callable[..., Any]:
    """The entry point that `torch.compile(..., backend="deepseek")` finds."""
    options = _within(Options(**kwargs.get("options", {})))
    masked.rewrite(module.graph)
    module.recompile()

    def compiler_of(kind: str) -> SerializableAOTDispatchCompiler:
        compile_kind = functools.partial(compile_graph, kind=kind, options=options)
        return SerializableAOTDispatchCompiler(Compiled, compile_kind)

    compiler = aot_autograd(
        fw_compiler=compiler_of("forward"),
        bw_compiler=compiler_of("backward"),
        inference_compiler=compiler_of("inference"),
        decompositions=decompositions(),
        keep_inference_input_mutations=may_stay(example_inputs),
        partition_fn=functools.partial(
            saved.partition, storage=STORAGE[options.storage or "fp32"], budget=options.memory_budget
        ),
    )
    with cached.kept(module, options, options.threads or torch.get_num_threads()), whole_layers():
        compiled: Callable[..., Any] = compiler(module, example_inputs)
    return compiled
