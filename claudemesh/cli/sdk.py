"""`claudemesh sdk`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import claudemesh
from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option
from claudemesh.client.errors import WrongUse
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.oserrors import cannot_write
from claudemesh.sdks import SDKS

_READABLE = 0o644


@click.command()
@click.argument("language", type=click.Choice(list(SDKS)))
@click.option(
    "--out",
    metavar="FILE",
    default="-",
    help="The file to write, or a directory. Default: `-`, standard output.",
)
@click.option("--force", is_flag=True, help="Replace a file with another content.")
@json_option
@answers.action(status="string", language="string*", version="string*", file="string?*", source="string")
def sdk(language: str, out: str, force: bool, as_json: bool) -> int:
    """Print the SDK of a language, one file to copy into a program.

    The file needs nothing but the standard library of its language. It fits the daemon of this version.
    With --out the file is written. A file with another content is replaced after a question, or with
    --force. With --json and without --out, `source` holds the file.

    \b
    Examples:
      claudemesh sdk python --out claudemesh_sdk.py
      claudemesh sdk python | less
    """
    chosen = SDKS[language]
    source = chosen.source()
    answer = {"language": language, "version": claudemesh.__version__}
    if out == "-":
        if as_json:
            shown = {"status": "shown", **answer, "file": None, "source": source.decode()}
            return output.print_answer(True, shown, "")
        output.body(source.decode())
        return 0
    path = Path(out)
    if out.endswith("/") or path.is_dir():
        path = path / chosen.copy
    status = _write(path, source, force=force)
    answer |= {"status": status, "file": str(path)}
    return output.print_answer(as_json, answer, f"{status} {path}", made=str(path))


def _write(path: Path, source: bytes, *, force: bool) -> str:
    """Write the file and return the outcome. Raise `WrongUse` when another content is there."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        text = f"{path} is not a regular file, or is a symbolic link. Use --out - and a pipe instead."
        raise WrongUse("not_a_regular_file", text)
    if path.is_file():
        if path.read_bytes() == source:
            return "unchanged"
        if not force and not sys.stdin.isatty():
            text = f"{path} exists with another content. Nothing was changed. Replace it with --force."
            raise WrongUse("file_exists", text)
        if not force:
            click.confirm(f"{path} exists with another content. Replace it?", abort=True, err=True)
    try:
        write_atomic(path, source, _READABLE)
    except OSError as error:
        raise cannot_write(error, path) from error
    return "written"
