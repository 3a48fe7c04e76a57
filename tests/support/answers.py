"""Comparison of the JSON that a command prints with the answer that it declares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "time": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "any": (object,),
}
_STRAY = "\x00"


def command_of(arguments: Sequence[str]) -> click.Context:
    """The command that arguments name."""
    from claudemesh.cli.main import cli

    context = click.Context(cli, info_name="claudemesh")
    for word in arguments:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is not None:
            context = click.Context(found, parent=context, info_name=word)
        elif not word.startswith("-"):
            break
    return context


def check(arguments: Sequence[str], out: str) -> None:
    """Assert that JSON has exactly the fields that its command declares, each of its type."""
    from claudemesh.cli.answers import declared
    from claudemesh.cli.description import answer_of

    answer = declared(command_of(arguments).command.callback)
    assert answer is not None, arguments
    described = answer_of(answer)
    for line in out.splitlines():
        found = json.loads(line)
        assert found["schema"] == 1, arguments
        if "error" in found and "message" in found and "error" not in _names(described["fields"]):
            assert isinstance(found["error"], str), found
        elif answer.kind == "items" and not ("items" not in found and answer.others):
            beside = {"schema": 1, "next": None, "items": []}
            assert isinstance(found["items"], list), found
            _fit(found, described["beside_items"], beside, None, arguments)
            for item in found["items"]:
                _fit(item, described["fields"], {}, None, arguments)
        elif not ("items" in found and answer.others):
            more = {"schema": 1, **({"next": []} if answer.kind == "action" else {})}
            _fit(found, described["fields"], more, answer.others, arguments)


def _names(fields: Sequence[Mapping[str, Any]]) -> set[str]:
    return {field["name"] for field in fields}


def _fit(
    found: Mapping[str, Any],
    fields: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any],
    others: str | None,
    arguments: Sequence[str],
) -> None:
    required = {field["name"] for field in fields if not field["optional"]} | more.keys()
    assert required - found.keys() == set(), (arguments, required - found.keys())
    if others is None:
        assert found.keys() - required - _names(fields) == set(), (
            arguments,
            found.keys() - required - _names(fields),
        )
    for field in fields:
        value = found.get(field["name"], _STRAY)
        if value is None:
            assert field["nullable"], (arguments, field)
        elif value is not _STRAY:
            is_number = isinstance(value, bool) and field["type"] in ("integer", "number")
            assert isinstance(value, _KINDS[field["type"]]) and not is_number, (arguments, field, value)
