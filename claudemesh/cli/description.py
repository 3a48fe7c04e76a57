"""Description of every command as plain data, made from the tree of commands and their declared answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any

import click

from claudemesh.cli.answers import Answer, declared
from claudemesh.cli.help import EXIT_CODES
from claudemesh.cli.options import variable_of

# Types of the daemon's API, in these modules.
_MODULES = (
    "schemas",
    "schemas_status",
    "schemas_members",
    "schemas_outbox",
    "schemas_files",
    "schemas_history",
    "schemas_sessions",
    "invites",
    "keys",
)
_API = tuple(f"claudemesh.daemon.api.{name}" for name in _MODULES)
_ERROR = {"error": "string", "message": "string", "near": "array*", "next": "string*"}
# Exit codes of every command. 1 is for the commands that declare it.
_COMMON = {code: (name, meaning) for code, name, meaning in EXIT_CODES if code != 1}
_NAMES = {code: name for code, name, _ in EXIT_CODES}
_TYPES = {"text": "string", "integer range": "integer", "path": "file", "filename": "file"}
_FLAG = {"type": "boolean", "choices": None, "minimum": None, "maximum": None}


def walk(root: click.Context) -> Iterator[click.Context]:
    """Yield the context of each command that can be run, in the order of the help pages."""
    for context in _contexts(root):
        if not isinstance(context.command, click.Group) or context.command.invoke_without_command:
            yield context


def _contexts(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None, name
        below = click.Context(found, parent=context, info_name=name)
        yield below
        yield from _contexts(below)


def path_of(context: click.Context) -> tuple[str, ...]:
    """Return the words of a command behind `claudemesh`."""
    return () if context.parent is None else (*path_of(context.parent), str(context.info_name))


def describe(context: click.Context) -> dict[str, Any]:
    """Return the description of one command."""
    command = context.command
    answer = declared(command.callback)
    parameters = [parameter for parameter in command.params if parameter.name not in _display_names(context)]
    arguments = [each for each in parameters if isinstance(each, click.Argument)]
    options = [each for each in parameters if isinstance(each, click.Option) and not each.hidden]
    return {
        "command": " ".join(path_of(context)),
        "summary": command.get_short_help_str(limit=1000),
        "usage": command.get_usage(context).removeprefix("Usage: "),
        "help": cleandoc(command.help or "").replace("\b\n", ""),
        "arguments": [_argument(each, context) for each in arguments],
        "options": [option_of(each) for each in options],
        "answer": None if answer is None else answer_of(answer),
        "exit_codes": exit_codes({} if answer is None else answer.exits),
    }


def _display_names(context: click.Context) -> set[str | None]:
    return {parameter.name for parameter in context.find_root().command.params}


def _argument(argument: click.Argument, context: click.Context) -> dict[str, Any]:
    return {
        "name": argument.make_metavar(context).strip("[].") or argument.human_readable_name,
        **_type_of(argument.type),
        "required": argument.required,
        "repeatable": argument.nargs == -1,
    }


def option_of(option: click.Option) -> dict[str, Any]:
    """Return the description of an option."""
    default = None if callable(option.default) or _is_unset(option.default) else option.default
    return {
        "names": [*option.opts, *option.secondary_opts],
        "flag": option.is_flag,
        "metavar": None if option.is_flag else option.metavar,
        **(_FLAG if option.is_flag else _type_of(option.type)),
        "default": None if default in (False, ()) else default,
        "required": option.required,
        "repeatable": option.multiple,
        "env": variable_of(option),
        "help": option.help or "",
    }


def _is_unset(value: object) -> bool:
    # click marks a missing default by a value of an enumeration of its own.
    return not isinstance(value, str | int | float | bool | None | tuple | list)


def _type_of(kind: Any) -> dict[str, Any]:
    return {
        "type": _TYPES.get(kind.name, kind.name),
        "choices": list(kind.choices) if isinstance(kind, click.Choice) else None,
        "minimum": getattr(kind, "min", None),
        "maximum": getattr(kind, "max", None),
    }


def answer_of(answer: Answer) -> dict[str, Any]:
    """Return the description of an answer; the fields of the daemon's types are among its own."""
    return {
        "kind": answer.kind,
        "fields": [*_fields(answer.fields), *(field for name in answer.types for field in _of_type(name))],
        "beside_items": _fields(answer.beside),
        "others": answer.others,
    }


def error_fields() -> list[dict[str, Any]]:
    """Return the fields of an error in JSON."""
    return _fields(_ERROR)


def exit_codes(own: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return exit codes with their meanings; those that have one of their own here take it."""
    codes = sorted({*_COMMON, *own})
    return [
        {"code": code, "name": _NAMES[code], "meaning": own.get(code) or _COMMON.get(code, ("", ""))[1]}
        for code in codes
    ]


def _fields(types: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": kind.rstrip("?*"), "nullable": "?" in kind, "optional": "*" in kind}
        for name, kind in types.items()
    ]


def _of_type(name: str) -> Sequence[dict[str, Any]]:
    # Imported here: only a description needs the types of the daemon's API.
    import importlib

    import msgspec

    modules = map(importlib.import_module, _API)
    found = next(getattr(module, name) for module in modules if hasattr(module, name))
    known = msgspec.json.schema(found)["$defs"]
    required = known[name].get("required", ())
    return [
        {"name": field, **_type_of_schema(field, schema, known), "optional": field not in required}
        for field, schema in known[name]["properties"].items()
    ]


def _type_of_schema(name: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    variants = set(_variants(schema, known))
    kinds = variants - {"null"}
    kind = kinds.pop() if len(kinds) == 1 else "any"
    is_time = kind == "string" and name.endswith("_at")
    return {"type": "time" if is_time else kind, "nullable": "null" in variants or kind == "any"}


def _variants(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _variants(each, known)
    elif "$ref" in schema:
        yield from _variants(known[schema["$ref"].rpartition("/")[2]], known)
    elif "enum" in schema:
        yield "string"
        if None in schema["enum"]:
            yield "null"
    else:
        yield str(schema.get("type", "any"))
