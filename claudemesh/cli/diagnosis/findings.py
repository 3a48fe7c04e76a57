"""Findings: the results of checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]

FIX = "claudemesh doctor --fix"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `code` is stable: `ok`, or the fault.

    Where the state is not ok, `remedy` is the next step in words, and `next` a command, if one helps.
    """

    check: str
    state: State
    code: str
    detail: str
    remedy: str = ""
    next: str | None = None


def ok(check: str, detail: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(check, "ok", "ok", detail)


def warning(check: str, code: str, detail: str, remedy: str, next: str | None = None) -> Finding:
    """Return a fault that does not keep messages from being sent."""
    return Finding(check, "warning", code, detail, remedy, next)


def failed(check: str, code: str, detail: str, remedy: str, next: str | None = None) -> Finding:
    """Return a fault that does."""
    return Finding(check, "failed", code, detail, remedy, next)
