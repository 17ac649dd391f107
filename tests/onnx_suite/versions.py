"""Node tests at the other versions of their operators: a case is stamped with that opset, where the operator
takes what it gives, and ONNX Runtime at that opset (else ONNX's reference) says what comes out.

Inputs that were attributes then become attributes: Squeeze's axes, Slice's starts, TopK's k.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper

OLDEST = 7  # what ONNX Runtime guarantees; the importer takes 6 as well
CASES = 3  # per version of an operator
# Where neither a node test nor an oracle is to be had.
UNSEEN = {
    ("GlobalLpPool", 22): "as 2, for bfloat16 too",
    ("MaxRoiPool", 22): "as 1, for bfloat16 too",
    ("Loop", 1): "as 11, where loops are run",
    ("Optional", 28): "as 15, for more element types",
}
RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def versions() -> dict[str, list[int]]:
    """The versions of the standard domain's operators that opset 7 and newer have."""
    found: dict[str, list[int]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and not schema.deprecated:
            found[schema.name].append(schema.since_version)
    alive = {}
    for name, since in found.items():
        since.sort()
        at_oldest = max((v for v in since if v <= OLDEST), default=0)
        alive[name] = [v for v in since if v >= max(at_oldest, 1)]
    return alive


def seen(models: Iterator[Any]) -> set[tuple[str, int]]:
    """The operators with their versions that the models have, sub-graphs and functions included."""
    every = versions()
    found = set()

    def visit(nodes: Any, opset: int) -> None:
        for node in nodes:
            if node.domain in ("", "ai.onnx") and node.op_type in every:
                found.add((node.op_type, max((v for v in every[node.op_type] if v <= opset), default=0)))
            for attribute in node.attribute:
                visit(attribute.g.node, opset)

    for model in models:
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        visit(model.graph.node, opset)
    return found


def restamped(model: Any, inputs: list[Any], version: int) -> tuple[Any, list[Any]] | None:
    """The model of one node at that version and its inputs; None where the version takes no such form."""
    node = model.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, max(version, OLDEST))
    newest = onnx.defs.get_schema(node.op_type, model.opset_import[0].version)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.opset_import[0].version = max(version, OLDEST)
    result.ir_version = min(model.ir_version, 10)
    made = result.graph.node[0]
    fed = {value.name: given for value, given in zip(model.graph.input, inputs, strict=True)}
    formal = [i.name for i in newest.inputs]
    formal += [formal[-1]] * (len(node.input) - len(formal)) if formal else []
    then = {i.name for i in schema.inputs}
    kept = []
    for position, name in zip(node.input, formal, strict=False):
        name = "k" if name == "K" and "k" in schema.attributes else name  # of TopK
        if name in then or not position:
            kept.append(position)
        elif name in schema.attributes and isinstance(fed.get(position), np.ndarray):
            value = fed.pop(position)
            kind = schema.attributes[name].type.name
            single = kind in ("INT", "FLOAT")
            made.attribute.append(
                helper.make_attribute(
                    name,
                    value.reshape(-1)[0].item() if single and value.size else value.reshape(-1).tolist(),
                    attr_type=onnx.AttributeProto.AttributeType.Value(kind),
                )
            )
        elif len(schema.inputs) == len(newest.inputs):
            kept.append(position)  # by another name
        else:
            return None
    while kept and not kept[-1]:
        kept.pop()
    del made.input[:]
    made.input.extend(kept)
    defaults = {name: a.default_value for name, a in newest.attributes.items()}
    for attribute in list(made.attribute):
        if attribute.name in schema.attributes:
            continue
        default = defaults.get(attribute.name)
        if default is None or helper.get_attribute_value(attribute) != helper.get_attribute_value(default):
            return None
        made.attribute.remove(attribute)
    values = [value for value in model.graph.input if value.name in kept]
    del result.graph.input[:]
    result.graph.input.extend(values)
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception:
        return None
    return result, [fed[value.name] for value in values]


def expected(model: Any, inputs: list[Any]) -> list[Any] | None:
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    feed = dict(zip([value.name for value in model.graph.input], inputs, strict=True))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return list(session.run(None, feed))
    except Exception:  # not there at this opset, or not for this type
        try:
            return list(ReferenceEvaluator(model).run(None, feed))
        except Exception:
            return None


def one_node(version: int, node: Any, inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    graph = helper.make_graph([node], "graph", values, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", max(version, OLDEST))]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    return model, list(inputs.values())


def written() -> Iterator[tuple[str, int, Any, list[Any]]]:
    """Operator, version, model and inputs, where no node test has a form that the version takes."""
    x = np.arange(96, dtype=np.float32).reshape(1, 2, 6, 8) / 7 - 5
    rois = np.array([[0, 0, 0, 5, 3], [0, 1, 2, 7, 5]], np.float32)
    scales, roi = np.array([1, 1, 2, 3], np.float32), np.array([], np.float32)
    plain = [
        ("Pad", 2, {"x": x}, {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "value": 1.5}),
        ("TopK", 1, {"x": x}, {"k": 3}),
        ("Resize", 10, {"x": x, "scales": scales}, {"mode": "nearest"}),
        ("Resize", 11, {"x": x, "roi": roi, "scales": scales}, {"mode": "linear"}),
        ("GlobalLpPool", 2, {"x": x}, {"p": 3}),
        ("MaxRoiPool", 1, {"x": x, "rois": rois}, {"pooled_shape": [2, 2], "spatial_scale": 1.0}),
    ]
    for op, version, inputs, attributes in plain:
        outputs = ["y", ""] if op == "TopK" else ["y"]
        yield (
            op,
            version,
            *one_node(version, helper.make_node(op, list(inputs), outputs, **attributes), inputs),
        )


def cases(tests: Iterator[Any]) -> Iterator[tuple[str, Any, list[Any], list[Any]]]:
    """Name, model, inputs and outputs of each; `tests` are ONNX's cases of one node, with plain inputs."""
    count: dict[tuple[str, int], int] = defaultdict(int)
    every = versions()
    for name, model, inputs in tests:
        if len(model.graph.node) != 1 or model.graph.node[0].domain not in ("", "ai.onnx"):
            continue
        op = model.graph.node[0].op_type
        newest = onnx.defs.get_schema(op, model.opset_import[0].version).since_version
        for version in every.get(op, []):
            if version == newest or count[op, version] >= CASES or op in RANDOM:
                continue
            made = restamped(model, inputs, version)
            outputs = made and expected(*made)
            if made is None or outputs is None:
                continue
            count[op, version] += 1
            yield f"version-{op}-{version}-{name}", *made, outputs
    for op, version, model, inputs in written():
        outputs = expected(model, inputs)
        assert outputs is not None, (op, version)
        yield f"version-{op}-{version}-written", model, inputs, outputs
