"""Writes the manual pages: one for each command of the first level, from the same data as `describe`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

import claudemesh
from claudemesh.cli.answers import Answer, declared
from claudemesh.cli.description import answer_of, exit_codes, option_of, path_of, walk
from claudemesh.cli.main import cli

FOLDER = Path(__file__).parents[1] / "dist/man"
_KINDS = {
    "one": "An object.",
    "action": "An object, whose field next lists commands that make sense now.",
    "items": "A list: an object with items and next, the cursor of the next page. Each item:",
    "lines": "An object a line:",
    "none": "None.",
}


def write(folder: Path) -> list[Path]:
    """Write all pages below a folder, and return their paths."""
    root = click.Context(cli, info_name="claudemesh", help_option_names=["-h", "--help"])
    target = folder / "man1"
    target.mkdir(parents=True, exist_ok=True)
    made = {"claudemesh": _overview(root)}
    for name in cli.list_commands(root):
        contexts = [context for context in walk(root) if path_of(context)[0] == name]
        made[f"claudemesh-{name}"] = _page(root, name, contexts)
    paths = []
    for name, lines in made.items():
        path = target / f"{name}.1"
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def _overview(root: click.Context) -> list[str]:
    summary, _, rest = cleandoc(cli.help or "").partition("\n\n")
    lines = [*_title("claudemesh"), ".SH NAME", f"claudemesh \\- {_text(_line(summary))}", ".SH SYNOPSIS"]
    lines += [".B claudemesh", _text("[OPTIONS] COMMAND [ARGS]...")]
    lines += [".SH DESCRIPTION", *_prose(rest), ".SH OPTIONS", *_options(root)]
    lines.append(".SH COMMANDS")
    for name in cli.list_commands(root):
        found = cli.get_command(root, name)
        assert found is not None, name
        lines += [
            ".TP",
            f".BR {_text(f'claudemesh-{name}')} (1)",
            _text(found.get_short_help_str(limit=1000)),
        ]
    return [*lines, *_exits(None)]


def _page(root: click.Context, name: str, contexts: Sequence[click.Context]) -> list[str]:
    command = cli.get_command(root, name)
    assert command is not None, name
    lines = [*_title(f"claudemesh-{name}"), ".SH NAME"]
    lines += [
        f"{_text(f'claudemesh-{name}')} \\- {_text(command.get_short_help_str(limit=1000))}",
        ".SH SYNOPSIS",
    ]
    for context in contexts:
        words = f"claudemesh {' '.join(path_of(context))}"
        lines += [
            f".B {_text(words)}",
            _text(context.command.get_usage(context).partition(words)[2].strip()),
            ".br",
        ]
    lines += [".SH DESCRIPTION", *_prose(cleandoc(command.help or ""))]
    if not isinstance(command, click.Group):
        (context,) = contexts
        return [
            *lines,
            ".SH OPTIONS",
            *_options(context),
            ".SH JSON",
            *_json(context),
            *_exits(context),
            *_also(),
        ]
    for context in contexts:
        lines.append(f".SH {_text(' '.join(path_of(context)).upper())}")
        if context.command is not command:
            lines += _prose(cleandoc(context.command.help or ""))
        lines += [".SS Options", *_options(context), ".SS JSON", *_json(context)]
    return [*lines, *_exits(None), *_also()]


def _title(name: str) -> list[str]:
    return [
        f'.TH {_text(name.upper())} 1 "" "claudemesh {claudemesh.__version__}" "claudemesh"',
        ".nh",
        ".ad l",
    ]


def _prose(text: str) -> Iterator[str]:
    """Yield paragraphs; those behind a backspace keep their lines."""
    for part in text.split("\n\n"):
        if part.startswith("\b\n"):
            yield from (".PP", ".nf", *(_text(line) for line in part.splitlines()[1:]), ".fi")
        elif part.strip():
            yield from (".PP", _text(_line(part)))


def _options(context: click.Context) -> Iterator[str]:
    for option in context.command.get_params(context):
        if not isinstance(option, click.Option) or option.hidden:
            continue
        described = option_of(option)
        value = "" if described["flag"] else f" {described['metavar'] or _value(described)}"
        yield from (
            ".TP",
            f".B {_text(', '.join(described['names']) + value)}",
            _text(_line(described["help"])),
        )
        if described["default"] is not None:
            yield _text(f"Default: {described['default']}.")
        if described["env"]:
            yield _text(f"Variable: {described['env']}.")


def _value(described: dict[str, Any]) -> str:
    return "|".join(described["choices"]) if described["choices"] else described["type"].upper()


def _json(context: click.Context) -> Iterator[str]:
    answer = declared(context.command.callback) or Answer("none")
    described = answer_of(answer)
    yield _text(_KINDS[answer.kind])
    for field in [*described["beside_items"], *described["fields"]]:
        null = " or null" if field["nullable"] else ""
        yield from (".br", f".B {_text(field['name'])}", _text(f"{field['type']}{null}"))
    if answer.others:
        yield from (".br", _text(answer.others))


def _exits(context: click.Context | None) -> Iterator[str]:
    answer = None if context is None else declared(context.command.callback)
    yield ".SH EXIT STATUS"
    for code in exit_codes({} if answer is None else answer.exits):
        yield from (".TP", f".B {code['code']}", _text(code["meaning"]))


def _also() -> Iterator[str]:
    yield from (".SH SEE ALSO", ".BR claudemesh (1)")


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Return a text that the formatter prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


if __name__ == "__main__":
    for written in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(written)
