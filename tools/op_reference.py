"""Writes the reference of all ops from the op table; `./dev docs` puts it into build/docs/ops.md."""

import sys
from pathlib import Path
from typing import Any

from deepseek import _core


def signature(op: Any) -> str:
    """name(inputs, attributes=defaults), the way that Graph's method is called."""
    parts = []
    for each in op.inputs:
        parts.append(
            f"*{each.name}" if each.variadic else f"{each.name}=None" if each.optional else each.name
        )
    for attr in op.attrs:
        parts.append(attr.name if attr.required else f"{attr.name}={attr.default!r}")
    return f"{op.name}({', '.join(parts)})"


def entry(op: Any) -> str:
    lines = [f"## {op.name}", "", f"`{signature(op)}`", "", op.doc, ""]
    if op.attrs:
        lines += ["| attribute | meaning |", "| --- | --- |"]
        lines += [f"| `{attr.name}` | {attr.doc.replace('|', chr(92) + '|')} |" for attr in op.attrs]
        lines.append("")
    if not op.differentiable:
        lines += ["No gradient.", ""]
    return "\n".join(lines)


def main(path: Path) -> None:
    ops = _core.op_table()
    text = f"# Ops\n\n{len(ops)} ops, each a method of `ds.Graph`.\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n".join(entry(op) for op in ops))
    print(f"{len(ops)} ops in {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
