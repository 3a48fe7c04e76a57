"""`claudemesh daemon backup` and `claudemesh daemon restore`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, ExitWith

_passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File with the passphrase. Default: it is asked for on the terminal.",
)


@click.command()
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="File to write.")
@_passphrase_file
@mesh_option
@json_option
@answers.action(file="string", mesh="string", files="array", left_out="array")
def backup(target: Path, passphrase_file: Path | None, mesh: str | None, as_json: bool) -> int:
    """Write keys, membership, pins, settings and hooks to an encrypted file.

    Messages and the API token are not in it. Of the folder of hooks it has the files with names of letters,
    digits, dots, hyphens and underscores; it names the others. Make a new backup after each rotation of the
    keys: the broker does not take the older ones. The passphrase has at least 12 characters.

    \b
    Examples:
      claudemesh daemon backup --out team.backup
      claudemesh daemon backup --out team.backup --passphrase-file secret
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.backing_up import left_out, read_membership
    from claudemesh.home.backup import check_passphrase, seal_backup
    from claudemesh.runtime.files import write_atomic
    from claudemesh.runtime.oserrors import cannot_write

    slug = choose_mesh(mesh)
    if target.exists():
        raise ExitWith(CANNOT_CREATE, "file_exists", f"{target} exists. Nothing was written.")
    paths = daemon_paths(slug)
    content = read_membership(paths)
    missing = left_out(paths)
    passphrase = _passphrase(passphrase_file, is_new=True)
    check_passphrase(passphrase)
    try:
        write_atomic(target.absolute(), seal_backup(content, passphrase))
    except OSError as error:
        raise cannot_write(error, target) from error
    if missing:
        output.note(f"The backup lacks {', '.join(map(output.safe, missing))}: copy them yourself.")
    answer = {"file": str(target), "mesh": slug, "files": sorted(content.files), "left_out": missing}
    return output.print_answer(
        as_json, answer, f"wrote {len(content.files)} files of mesh {slug} to {target}"
    )


@click.command()
@click.option("--in", "source", required=True, type=click.Path(path_type=Path), help="Backup to read.")
@click.option("--replace", is_flag=True, help="Move the files aside that this host has of the mesh.")
@_passphrase_file
@json_option
@answers.action(mesh="string", created_at="string", files="array", old_files="string?")
def restore(source: Path, replace: bool, passphrase_file: Path | None, as_json: bool) -> int:
    """Bring a member back from a backup, on this host.

    Everything is written, or nothing. The files belong to this host then, so the host that was backed up
    must not run any more. The daemon must not run. When the keys were rotated after the backup was made, the
    broker refuses the older ones, and the daemon says so.

    \b
    Examples:
      claudemesh daemon restore --in team.backup
      claudemesh daemon up -d
    """
    from claudemesh.client.backing_up import write_membership
    from claudemesh.daemon.settings import load_settings
    from claudemesh.home.backup import MOST_BYTES, open_backup
    from claudemesh.runtime.oserrors import cannot, cannot_read

    try:
        with source.open("rb") as file:
            raw = file.read(2 * MOST_BYTES)
    except OSError as error:
        raise cannot_read(error, source) from error
    content = open_backup(raw, _passphrase(passphrase_file, is_new=False))
    try:
        moved = write_membership(
            content,
            daemon_paths(content.slug),
            lambda config: load_settings(config).clone_id_override,
            replace=replace,
        )
    except OSError as error:
        raise cannot("write", error, daemon_paths(content.slug).root) from error
    answer = {
        "mesh": content.slug,
        "created_at": content.created_at,
        "files": sorted(content.files),
        "old_files": None if moved is None else str(moved),
    }
    aside = "" if moved is None else f"; the files that stood there are in {moved}"
    text = f"restored the member of mesh {content.slug} from {content.created_at}{aside}"
    return output.print_answer(as_json, answer, text, next=[command("daemon", "up", "-d", mesh=content.slug)])


def _passphrase(path: Path | None, *, is_new: bool) -> str:
    from claudemesh.runtime.files import UnsafeFile, read_private
    from claudemesh.runtime.oserrors import cannot_read

    if path is None:
        if not sys.stdin.isatty():
            text = "There is no terminal to ask for the passphrase. Give it with --passphrase-file FILE."
            raise ExitWith(CONFIGURATION, "passphrase_needed", text)
        asked: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
        return asked
    try:
        return read_private(path.absolute(), 4096).decode().rstrip("\r\n")
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", str(error)) from error
    except UnicodeDecodeError as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise cannot_read(error, path) from error
