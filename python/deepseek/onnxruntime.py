"""ONNX Runtime running what we compile: subgraphs of a model as nodes of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek import _core
from deepseek.compiler import compile
from deepseek.errors import Error, invalid
from deepseek.executable import Executable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_DOMAIN = "deepseek"


def for_onnxruntime(
    model: bytes | str | os.PathLike[str], path: str | os.PathLike[str], **options: Any
) -> list[str]:
    """Writes the model with what we can compile of it as nodes of our own; gives the names of the others.

    A session runs it whose options registered our library:
    `options.register_custom_ops_library(deepseek.onnxruntime_library())`. Operators that we lack, and
    subgraphs for which values of inputs decide shapes, stay ONNX Runtime's. `options` are those of
    `deepseek.compile`. Its code is for this machine's instruction set, or for what `isa` says. Needs the onnx
    package.
    """
    import onnx

    loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(os.fspath(model))
    embedded, theirs = _embedded(onnx.shape_inference.infer_shapes(loaded), options)
    if embedded.ByteSize() >= 2**31:
        raise invalid("for_onnxruntime", "a model below 2 GiB", f"{embedded.ByteSize()} bytes")
    Path(path).write_bytes(embedded.SerializeToString())
    return theirs


def onnxruntime_library() -> str:
    """The file for `SessionOptions.register_custom_ops_library`."""
    return _core.onnxruntime_library()


def _embedded(model: ModelProto, options: dict[str, Any]) -> tuple[ModelProto, list[str]]:
    names = _name_nodes(model.graph)
    theirs: set[str] = set()
    while True:
        pieces = _pieces(model, theirs)
        refused: set[str] = set()
        for piece in pieces:
            refused |= piece.refused(names)
        if not refused:
            break
        theirs |= refused
    for piece in pieces:
        piece.compile(options)
    return _with_pieces(model, pieces, theirs), [
        node.name for node in model.graph.node if node.name in theirs
    ]


def _name_nodes(graph: GraphProto) -> dict[str, str]:
    """Gives each node a name of its own; from the names of inner nodes too to that of the outermost."""
    outermost: dict[str, str] = {}

    def visit(inner: GraphProto, top: str) -> None:
        for node in inner.node:
            name = node.name or node.op_type
            while name in outermost:
                name += "_"
            node.name = name
            outermost[name] = top or name
            for below in _graphs(node):
                visit(below, outermost[name])

    visit(graph, "")
    return outermost


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _used(node: NodeProto) -> set[str]:
    """Names that the node reads, those in its sub-graphs included."""
    names = set(node.input)
    for graph in _graphs(node):
        made = {value.name for value in graph.input} | {value.name for value in graph.initializer}
        made |= {name for inner in graph.node for name in inner.output}
        inside = {value.name for value in graph.output}.union(*map(_used, graph.node))
        names |= inside - made
    return names - {""}


def _stages(nodes: Sequence[NodeProto], theirs: set[str]) -> list[int]:
    """A number per node that grows along edges, where the nodes change hands: odd where they are ours.

    What lies between two nodes of one number has that number too, so that they can become one node.
    """
    of_value: dict[str, int] = {}
    stages = []
    for node in nodes:
        stage = max((of_value.get(name, 0) for name in _used(node)), default=0)
        if stage % 2 == (node.name in theirs):
            stage += 1
        stages.append(stage)
        of_value.update(dict.fromkeys(node.output, stage))
    return stages


class _Piece:
    """Nodes that become one node."""

    def __init__(
        self, model: ModelProto, nodes: list[NodeProto], types: dict[str, ValueInfoProto], read: set[str]
    ) -> None:
        import onnx

        self.nodes = nodes
        made = {name for node in nodes for name in node.output}
        used = set[str]().union(*map(_used, nodes)) - made
        constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
        self.inputs = sorted(used - {tensor.name for tensor in constants})
        self.outputs = sorted(made & read)
        known = [types[name] for name in (*self.inputs, *self.outputs) if name in types]
        self.typed = len(known) == len(self.inputs) + len(self.outputs)
        graph = onnx.helper.make_graph(
            nodes, "piece", known[: len(self.inputs)], known[len(self.inputs) :], constants
        )
        self.model = onnx.helper.make_model(
            graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
        ).SerializeToString()
        self.node: NodeProto | None = None

    def refused(self, names: dict[str, str]) -> set[str]:
        """The nodes that are not for us; empty when all are."""
        everything = {node.name for node in self.nodes}
        if not self.typed:
            return everything
        try:
            program = _core.OnnxProgram.parse(self.model)
            if program.shape_inputs or any(kind != "tensor" for kind in program.outputs.values()):
                return everything
            program.graph_for({})
        except Error as error:
            blamed = names.get(error.source.rpartition(": ")[2])
            return {blamed} if blamed in everything else everything
        return set()

    def compile(self, options: dict[str, Any]) -> None:
        import onnx

        executable = compile(self.model, **options)
        assert isinstance(executable, Executable)
        self.node = onnx.helper.make_node(
            "Executable", self.inputs, self.outputs, domain=_DOMAIN, executable=executable._core.to_bytes()
        )


def _pieces(model: ModelProto, theirs: set[str]) -> list[_Piece]:
    graph = model.graph
    types = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    stages = _stages(graph.node, theirs)
    pieces = []
    for stage in sorted({s for s in stages if s % 2 == 1}):
        inside = [node for node, s in zip(graph.node, stages, strict=True) if s == stage]
        outside = [node for node, s in zip(graph.node, stages, strict=True) if s != stage]
        read = {value.name for value in graph.output}.union(*map(_used, outside))
        pieces.append(_Piece(model, inside, types, read))
    return pieces


def _with_pieces(model: ModelProto, pieces: list[_Piece], theirs: set[str]) -> ModelProto:
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    stages = dict(zip((node.name for node in graph.node), _stages(graph.node, theirs), strict=True))
    nodes = [(stages[node.name], node) for node in model.graph.node if node.name in theirs]
    nodes += [(stages[piece.nodes[0].name], piece.node) for piece in pieces if piece.node is not None]
    nodes.sort(key=lambda staged: staged[0])
    del graph.node[:]
    graph.node.extend(node for _, node in nodes)
    used = {value.name for value in graph.output}.union(*map(_used, graph.node))
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if pieces:
        result.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return result
