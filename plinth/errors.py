"""Errors for the user: each names the thing, what was expected and the next step."""

from __future__ import annotations

from typing import Any

from plinth.printable import visible


class UserError(Exception):
    """A mistake or a state that the user can correct; printed without a traceback.

    Text of servers and names in it is escaped, so that it stays one line wherever it is printed.
    ``exit_code`` is 2 for wrong use (a bad key, a taken port) and 1 where the run succeeded and the answer is no.
    """

    exit_code: int

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(visible(message))
        self.exit_code = exit_code


def refusal(error: Any) -> str | None:
    """Return what a pydantic model or a text decoder rejected, as a sentence; None for any other error."""
    if isinstance(error, UnicodeError):
        return visible(f"Text that was read is not {error.args[0]} ({error.args[-1]}); save the file as UTF-8.")
    if type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        return visible(f"{error.title}: {key}: {first['msg']}; correct it where it was set.")
    return None
