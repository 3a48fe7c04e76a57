"""Commands that a wrong name may have meant, in the group that was asked and in all the others."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

import click

_MOST = 3
# Higher than in the own group: there are many names.
_CLOSE_ELSEWHERE = 0.75


def near_commands(ctx: click.Context, name: str) -> list[str]:
    """Return the commands that are meant most likely, as they are typed behind `claudemesh`.

    First come commands with exactly this word in their name, of these the ones whose groups were typed too;
    then similar ones of this group, and only without both similar ones of other groups.
    """
    here = _path(ctx)
    root = ctx.find_root()
    paths = list(_commands(root.command, root, ()))
    same = [path for path in paths if name in (path[-1], *path[-1].split("-"))]
    same.sort(key=lambda path: -len(set(path[:-1]) & set(here)))
    siblings = {path[-1]: path for path in paths if path[:-1] == here}
    near = [siblings[found] for found in get_close_matches(name, siblings)]
    if not same and not near:
        close = set(get_close_matches(name, {path[-1] for path in paths}, cutoff=_CLOSE_ELSEWHERE))
        near = [path for path in paths if path[-1] in close]
    # A command may have the word and be similar as well.
    return [" ".join(path) for path in dict.fromkeys([*same, *near])][:_MOST]


def _path(ctx: click.Context) -> tuple[str, ...]:
    return () if ctx.parent is None else (*_path(ctx.parent), str(ctx.info_name))


def _commands(command: click.Command, ctx: click.Context, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of each command below this one; shorter paths come first within a group."""
    if not isinstance(command, click.Group):
        return
    found = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
    for name in found:
        yield (*path, name)
    for name, below in found.items():
        if below is not None:
            yield from _commands(below, click.Context(below, info_name=name, parent=ctx), (*path, name))
