"""What became of the graphs that PyTorch gave us: what was compiled, and what runs in PyTorch and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deepseek import Executable
from deepseek.specialized import Specializations


@dataclass
class Record:
    """One graph."""

    kind: str  # "inference", "forward", "backward"
    pieces: list[tuple[int, Executable]] = field(default_factory=list)  # ATen ops in it, the executable
    eager: Counter[tuple[str, str]] = field(default_factory=Counter)  # (ATen op, reason): how many
    draws: Counter[str] = field(default_factory=Counter)  # of PyTorch's generator, before the pieces
    checks: Counter[str] = field(default_factory=Counter)  # of results, which raise PyTorch's errors
    specializations: list[Specializations[Any]] = field(default_factory=list)

    def add_piece(
        self, ops: int, executable: Executable, specializations: Specializations[Any] | None = None
    ) -> None:
        self.pieces.append((ops, executable))
        if specializations is not None:
            self.specializations.append(specializations)

    def add_eager(self, op: str, reason: str) -> None:
        self.eager[(op, reason)] += 1

    def __str__(self) -> str:
        ops = sum(count for count, _ in self.pieces)
        lines = [
            f"{self.kind} graph: {ops} ATen ops compiled in {len(self.pieces)} piece(s), "
            f"{self.eager.total()} run in PyTorch"
        ]
        lines += [
            f"  in PyTorch: {count} x {op}: {reason}" for (op, reason), count in self.eager.most_common()
        ]
        lines += [f"  drawn from PyTorch's generator: {count} x {op}" for op, count in self.draws.items()]
        lines += [f"  checked by PyTorch: {count} x {op}" for op, count in self.checks.items()]
        lines += [f"  {line}" for special in self.specializations for line in special.lines()]
        return "\n".join(lines)


RECORDS: list[Record] = []


@dataclass
class Explanation:
    """What `explain()` returns; printed, it is text."""

    records: list[Record]

    @property
    def eager_ops(self) -> Counter[str]:
        """ATen ops that run in PyTorch, and how many of each."""
        counts: Counter[str] = Counter()
        for record in self.records:
            for (op, _), count in record.eager.items():
                counts[op] += count
        return counts

    @property
    def draws(self) -> Counter[str]:
        """Random draws from PyTorch's generator, which come before the compiled pieces."""
        return sum((record.draws for record in self.records), Counter[str]())

    def __str__(self) -> str:
        return "\n".join(str(record) for record in self.records) or "nothing has been compiled"


def explain() -> Explanation:
    """Tells what became of every graph that PyTorch handed to this backend since the last `reset()`."""
    return Explanation(list(RECORDS))


def reset() -> None:
    """Forgets the graphs told by `explain()`."""
    RECORDS.clear()
