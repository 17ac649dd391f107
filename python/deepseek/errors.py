"""The one exception."""

from __future__ import annotations

from deepseek import _core


class Error(Exception):
    """What went wrong: the op, the user's line, what was expected and what came.

    `code` is one of "invalid argument", "not found", "unsupported", "out of range", "data loss",
    "resource exhausted" and "internal" (a bug of ours).
    """

    def __init__(
        self,
        message: str,
        code: str = "invalid argument",
        op: str = "",
        source: str = "",
        expected: str = "",
        got: str = "",
    ) -> None:
        super().__init__(message, code, op, source, expected, got)
        self.code = code
        self.op = op
        self.source = source
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return str(self.args[0])


def invalid(op: str, expected: str, got: str, source: str = "") -> Error:
    """An Error in the form that the C++ side gives it."""
    message = f"{source + ': ' if source else ''}{op}: expected {expected}, got {got}"
    return Error(message, "invalid argument", op, source, expected, got)


_core.set_error_class(Error)
