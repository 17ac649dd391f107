"""Variables: reads, assignments."""

from __future__ import annotations

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, Variable, rule
from deepseek.tensorflow.shapes import Unsupported


def _variable(item: object) -> Variable:
    if not isinstance(item, Variable):
        raise Unsupported("a variable of the function")
    return item


@rule("ReadVariableOp")
def read(b: Builder, variable: Variable) -> Tensor:
    return b.read(_variable(variable))


@rule("ResourceGather")
def gather_from(b: Builder, variable: Variable, indices: Tensor) -> Value:
    if b.attr("batch_dims"):
        raise Unsupported("a gather without shared axes")
    return b.op("gather", b.read(_variable(variable)), indices, axis=0)


@rule("ResourceGatherNd")
def gather_nd_from(b: Builder, variable: Variable, indices: Tensor) -> Value:
    return b.op("gather_nd", b.read(_variable(variable)), indices)


@rule("VariableShape")
def shape_of(b: Builder, variable: Variable) -> Value:
    return b.cast(b.op("shape_of", b.read(_variable(variable))), b.result_dtype())


@rule("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
def assign(b: Builder, item: Variable, value: Tensor) -> tuple[()]:
    variable = _variable(item)
    if b.outer is not None:
        raise Unsupported(f"no change of {variable.name} in a loop or branch that the run decides")
    if b.node.type != "AssignVariableOp":
        name = "add" if b.node.type == "AssignAddVariableOp" else "sub"
        value = b.op(name, b.read(variable), value)
    b.state[variable] = b.value(value)
    if variable not in b.assigned:
        b.assigned.append(variable)
    return ()
