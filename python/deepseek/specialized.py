"""Executables for sizes that keep coming, compiled in the background beside one that takes every size."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from deepseek import _core
from deepseek.errors import invalid

T = TypeVar("T")
Sizes = tuple[int, ...]  # a value of each symbol

# Sizes that have executables of their own; the least recently used gives way. Each may keep packed weights.
MOST = 4
# Sizes whose runs are counted.
_MOST_COUNTED = 256
# Of the compiling thread: whoever runs comes first.
_NICENESS = 19


class Specializations(Generic[T]):
    """What `make` makes of a graph whose sizes are bound, for those that came in `after` runs.

    Any number of threads may call `find`, which never waits for a compilation. One compiles at a time, in a
    thread that the process waits for when it ends. Where that fails the sizes are left to the executable that
    takes all of them, and `lines` says why.
    """

    def __init__(self, graph: _core.Graph, after: int, make: Callable[[_core.Graph], T]) -> None:
        if after < 1:
            raise invalid("compile", "specialize of at least 0", str(after))
        self._graph, self._after, self._make = graph.bind_dims({}), after, make
        self._places: dict[str, tuple[int, int]] = {}  # input and axis that a symbol is the size of
        for position, value in enumerate(graph.inputs):
            for axis, size in enumerate(value.shape):
                if isinstance(size, str) and size.isidentifier():
                    self._places.setdefault(size, (position, axis))
        self._lock = threading.Lock()
        self._counts: OrderedDict[Sizes, int] = OrderedDict()
        self._made: OrderedDict[Sizes, T] = OrderedDict()
        self._served: Counter[Sizes] = Counter()
        self._failed: dict[Sizes, str] = {}
        self._thread: threading.Thread | None = None

    def find(self, shapes: Sequence[Sequence[int]]) -> T | None:
        """For a run on inputs of these shapes; None: the executable that takes all sizes."""
        try:
            sizes = tuple(shapes[position][axis] for position, axis in self._places.values())
        except IndexError:
            return None  # an error, which that executable explains
        if not sizes:
            return None
        with self._lock:
            if (made := self._made.get(sizes)) is not None:
                self._made.move_to_end(sizes)
                self._served[sizes] += 1
                return made
            if sizes in self._failed:
                return None
            count = self._counts[sizes] = self._counts.get(sizes, 0) + 1
            self._counts.move_to_end(sizes)
            if len(self._counts) > _MOST_COUNTED:
                self._counts.popitem(last=False)
            if count <= self._after or self._thread is not None:
                return None
            del self._counts[sizes]
            self._thread = threading.Thread(target=self._compile, args=(sizes,), name="deepseek compiles")
            self._thread.start()
        return None

    def wait(self) -> None:
        """Until nothing is being compiled."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def lines(self) -> list[str]:
        """What exists and how often it served."""
        with self._lock:
            made = [f"{self._name(sizes)}: {self._served[sizes]} runs" for sizes in self._made]
            failed = [f"{self._name(sizes)}: not compiled: {why}" for sizes, why in self._failed.items()]
        return [f"specialized for {line}" for line in made + failed]

    def _compile(self, sizes: Sizes) -> None:
        if sys.platform == "linux":
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        made, failed = None, ""
        try:
            made = self._make(self._graph.bind_dims(dict(zip(self._places, sizes, strict=True))))
        except Exception as error:  # runs go on without; lines() tells
            failed = str(error)
        with self._lock:
            self._thread = None
            if made is None:
                self._failed[sizes] = failed
                return
            self._made[sizes] = made
            if len(self._made) > MOST:
                gone, _ = self._made.popitem(last=False)
                del self._served[gone]

    def _name(self, sizes: Sizes) -> str:
        return ", ".join(f"{symbol}={size}" for symbol, size in zip(self._places, sizes, strict=True))
