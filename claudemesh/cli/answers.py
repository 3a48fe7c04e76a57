"""The JSON that a command prints, declared at the command: `describe` and a test read the declarations.

A field has a type: string, time, integer, number, boolean, object, array or any. After it, `?` means that the
value may be null, and `*` that the field may be missing. A command whose answer is an answer of the daemon
names its type in `claudemesh/daemon/api` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# `one` is an object. `action` is one with the commands that make sense next. `items` is a list. `lines` are
# objects, one a line. `none` is a command without an answer of its own, and without --json.
Kind: TypeAlias = Literal["one", "action", "items", "lines", "none"]
_ATTRIBUTE = "json_answer"

# Fields of several commands.
MEMBERSHIP: Mapping[str, str] = {
    "schema_version": "integer",
    "mesh_id": "string",
    "slug": "string",
    "broker_url": "string",
    "member_id": "string",
    "name": "string",
    "role": "string",
    "inviter_pubkey": "string?",
    "ephemeral": "boolean",
}
SENT: Mapping[str, str] = {
    "client_message_id": "string",
    "status": "string",
    "duplicate": "boolean*",
    "broker_message_id": "string?*",
    "history_id": "integer?*",
}
SETTING: Mapping[str, str] = {
    "key": "string",
    "value": "any?",
    "secret": "boolean",
    "set": "boolean",
    "origin": "object",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The JSON answer of a command. For a list and for lines, `fields` are those of each item."""

    kind: Kind
    fields: Mapping[str, str] = field(default_factory=dict)
    # Types of the daemon's API that have further fields.
    types: tuple[str, ...] = ()
    # Fields of a list beside its items.
    beside: Mapping[str, str] = field(default_factory=dict)
    # Other fields that the answer may have, in words.
    others: str | None = None
    # Exit codes that have a meaning of their own here.
    exits: Mapping[int, str] = field(default_factory=dict)


def one(*types: str, **fields: str) -> Callable[[F], F]:
    """Declare an object."""
    return _declare(Answer("one", fields, types))


def action(*types: str, **fields: str) -> Callable[[F], F]:
    """Declare the answer to an action, which has `next` too."""
    return _declare(Answer("action", fields, types))


def items(*types: str, **fields: str) -> Callable[[F], F]:
    """Declare a list."""
    return _declare(Answer("items", fields, types))


def lines(*types: str, **fields: str) -> Callable[[F], F]:
    """Declare one object a line."""
    return _declare(Answer("lines", fields, types))


def none(reason: str) -> Callable[[F], F]:
    """Declare that a command has no answer of its own; `reason` is a sentence."""
    return _declare(Answer("none", others=reason))


def beside_items(**fields: str) -> Callable[[F], F]:
    """Declare fields of a list beside its items. Stands above `items`."""

    def change(function: F) -> F:
        return _declare(replace(_of(function), beside=fields))(function)

    return change


def others(text: str) -> Callable[[F], F]:
    """Declare in words which other fields there may be. Stands above the declaration of the answer."""

    def change(function: F) -> F:
        return _declare(replace(_of(function), others=text))(function)

    return change


def exits(meanings: Mapping[int, str]) -> Callable[[F], F]:
    """Declare what exit codes mean here. Stands above the declaration of the answer."""

    def change(function: F) -> F:
        return _declare(replace(_of(function), exits=meanings))(function)

    return change


def declared(function: Callable[..., Any] | None) -> Answer | None:
    """Return the declaration of a command's function."""
    return getattr(function, _ATTRIBUTE, None)


def _of(function: Callable[..., Any]) -> Answer:
    found = declared(function)
    assert found is not None, function
    return found


def _declare(answer: Answer) -> Callable[[F], F]:
    def set_attribute(function: F) -> F:
        setattr(function, _ATTRIBUTE, answer)
        return function

    return set_attribute
