"""Compiled graphs, with arrays by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from deepseek import _core
from deepseek.arrays import NARROW, cast_to, to_numpy
from deepseek.errors import invalid
from deepseek.specialized import Specializations
from deepseek.tensor import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

Results: TypeAlias = "npt.NDArray[Any] | Tensor | tuple[npt.NDArray[Any] | Tensor, ...]"


class Executable:
    """A compiled graph. Immutable; many threads may run it at once."""

    def __init__(
        self,
        core: _core.Executable,
        target: str = "",
        specializations: Specializations[_core.Executable] | None = None,
    ) -> None:
        self._core, self._specializations = core, specializations
        self.target = target
        # Ports (name, dtype, shape) by name, in order.
        self.inputs = {port.name: port for port in core.inputs}
        self.outputs = {port.name: port for port in core.outputs}
        # What goes in as it is: NumPy's own dtypes, in this machine's byte order.
        names = {port.dtype for port in core.inputs} - NARROW.keys()
        self._dtypes = {name: np.dtype(name) for name in names if name != "string"}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Takes arrays by input name, casts them to the inputs' dtypes, gives arrays by output name."""
        results = self._run(self._arrays(inputs))
        return {name: to_numpy(result) for name, result in zip(self.outputs, results, strict=True)}

    def __call__(self, *args: Any, **kwargs: Any) -> Results:
        """Takes the inputs in order or by name; gives one array, or a tuple when there are several outputs.

        Tensors in, Tensors out; NumPy's arrays otherwise.
        """
        if len(args) > len(self.inputs):
            raise invalid("run", f"at most {len(self.inputs)} inputs", str(len(args)))
        named = dict(zip(self.inputs, args, strict=False))
        for name, value in kwargs.items():
            if name in named:
                raise invalid("run", f"one array for input {name!r}", "two")
            named[name] = value
        values = [named.get(name) for name in self.inputs]
        if len(named) != len(values) or any(value is None for value in values):
            self._refuse_names(named)
        wrap = any(isinstance(value, Tensor) for value in values)
        made = self._run(self._cast(values))
        results = [Tensor(result) if wrap else to_numpy(result) for result in made]
        return results[0] if len(results) == 1 else tuple(results)

    def explain(self) -> str:
        """What was compiled and why: a line per step with its source, and the compiler's notes."""
        special = self._specializations.lines() if self._specializations is not None else []
        return self._core.explain() + "".join(f"{line}\n" for line in special)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file for `deepseek.load`. Loading runs the code in it: load only what you trust."""
        self._core.save(os.fspath(path))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles hold what `save` writes."""
        return _unpickled, (self._core.to_bytes(), self.target)

    def __repr__(self) -> str:
        inputs = ", ".join(map(repr, self.inputs.values()))
        outputs = ", ".join(map(repr, self.outputs.values()))
        return f"<Executable ({inputs}) -> ({outputs})>"

    def _arrays(self, inputs: Mapping[str, Any]) -> list[_core.Array | npt.NDArray[Any]]:
        """One array per input, of its dtype."""
        values = [inputs.get(name) for name in self.inputs]
        if len(inputs) != len(values) or any(value is None for value in values):
            self._refuse_names(inputs)
        return self._cast(values)

    def _run(self, arrays: list[_core.Array | npt.NDArray[Any]]) -> list[_core.Array]:
        core = self._core
        if self._specializations is not None:
            core = self._specializations.find([array.shape for array in arrays]) or core
        return core.run(arrays)

    def _cast(self, values: list[Any]) -> list[_core.Array | npt.NDArray[Any]]:
        arrays: list[_core.Array | npt.NDArray[Any]] = []
        for port, value in zip(self.inputs.values(), values, strict=True):
            if type(value) is np.ndarray and value.dtype is self._dtypes.get(port.dtype):
                arrays.append(value if value.flags.c_contiguous else np.ascontiguousarray(value))
            else:
                arrays.append(cast_to(value, port.dtype, f'input "{port.name}"', port.source))
        return arrays

    def _refuse_names(self, given: Mapping[str, Any]) -> None:
        for name, port in self.inputs.items():
            if given.get(name) is None:
                raise invalid("run", f'an array for input "{name}"', "none", port.source)
        for name in given:
            if name not in self.inputs:
                raise invalid("run", f"inputs named {', '.join(self.inputs) or 'nothing'}", f'"{name}"')


def _unpickled(content: bytes, target: str) -> Executable:
    return Executable(_core.Executable.from_bytes(content), target)


class Context(_core.Context):
    """State to run an Executable with parameters that stay (see set_parameter)."""

    def __init__(self, executable: Executable) -> None:
        super().__init__(executable._core)


__all__ = ["Context", "Executable"]
