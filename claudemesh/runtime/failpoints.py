"""Failpoints: named places between two durable steps, where a crash test stops the process.

The names are listed in docs/architecture.md, Phases and failpoints. Nothing can be armed from outside: a test
installs a handler in its own process.
"""

from __future__ import annotations

from collections.abc import Callable

_handler: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Do nothing, unless a test has installed a handler."""
    if _handler is not None:
        _handler(name)


def install(handler: Callable[[str], None] | None) -> None:
    """Call `handler` at every failpoint from now on; `None` removes it."""
    global _handler
    _handler = handler
