"""Start of a mesh's daemon in the background, for `up -d`, `restart` and `run`."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from claudemesh.cli import output
from claudemesh.cli.background import Service, start
from claudemesh.cli.next_commands import command, needed
from claudemesh.client.errors import ApiError, ClientError
from claudemesh.client.local import LocalClient
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CANNOT_CREATE, ExitWith


def start_in_background(
    slug: str,
    with_broker: bool,
    name: str | None,
    as_json: bool,
    *,
    ttl_s: int | None = None,
    home: Path | None = None,
) -> int:
    """Start a mesh's daemon unless it runs, wait until it answers, and return the exit code.

    `home` is the private home of an ephemeral member, which the answer names.
    """
    paths = daemon_paths(slug)
    if paths.membership.exists() and LocalClient(slug).is_running():
        return keep_running(slug, with_broker, name, as_json)
    # Imported here: only a start writes to the folder.
    from claudemesh.runtime.files import make_private_dir

    make_private_dir(paths.root)
    arguments = ["--with-broker"] if with_broker else []
    arguments += ["--name", name] if name else []
    arguments += ["--ttl", f"{ttl_s}s"] if ttl_s else []
    pid = start_daemon(slug, arguments)
    if pid is None:
        return keep_running(slug, with_broker, name, as_json)
    started = {"status": "running", "mesh": slug, "pid": pid}
    text = f"started the daemon of mesh {slug} (pid {pid})"
    if home is not None:
        started |= {"home": str(home)}
        text += f"\nfor other commands: export CLAUDEMESH_HOME={home}"
    return output.print_answer(as_json, started, text, next=_following(slug), hint=False)


def start_daemon(slug: str, arguments: list[str], stdin: int | None = None) -> int | None:
    """Start a mesh's daemon with more arguments, and wait until it answers. See `background.start`."""
    log = daemon_paths(slug).log
    service = Service(
        "daemon", log, "claudemesh daemon logs", lambda _: _answers(slug), lambda: _has_tried(slug)
    )
    return start(service, ["daemon", "up", "--mesh", slug, *arguments], stdin=stdin)


@contextmanager
def bound_daemon(slug: str, arguments: list[str]) -> Generator[int | None]:
    """Start a mesh's daemon that stops when the context or this process ends, by SIGKILL too.

    Return its process id, None when another process has started it in the meantime.
    """
    watched, kept = os.pipe()
    try:
        try:
            pid = start_daemon(slug, ["--with-launcher", *arguments], stdin=watched)
        finally:
            os.close(watched)
        yield pid
    finally:
        os.close(kept)


def keep_running(slug: str, with_broker: bool, name: str | None, as_json: bool) -> int:
    """Leave a mesh's daemon running, a success, and give the member the wanted name.

    `ExitWith` 73 when a broker is wanted and the daemon runs without one.
    """
    client = LocalClient(slug)
    if with_broker and not client.get("/v1/health")["with_broker"]:
        raise ExitWith(
            CANNOT_CREATE,
            "runs_without_broker",
            f"The daemon of mesh {slug} runs already, without the broker that --with-broker asks for. "
            "Stop it, and repeat this command. Nothing was changed.",
            next=command("daemon", "down", mesh=needed(slug)),
        )
    answer = {"status": "already running", "mesh": slug}
    text = f"the daemon of mesh {slug} runs already"
    if name is not None and name != client.get("/v1/whoami")["name"]:
        renamed = client.post("/v1/rename", {"name": name})
        text += f"; this member is named {renamed['name']} now"
    return output.print_answer(as_json, answer, text, next=_following(slug), hint=False)


def _following(slug: str) -> list[str]:
    return [command(name, mesh=needed(slug)) for name in ("peers", "inbox")]


def _answers(slug: str) -> bool:
    try:
        LocalClient(slug).get("/v1/version")
    except (ClientError, ApiError):
        return False
    return True


def _has_tried(slug: str) -> bool:
    """Whether the daemon is connected, or its first attempt has failed. A refusal for good ends it."""
    try:
        health = LocalClient(slug).get("/v1/health")
    except (ClientError, ApiError):
        return False
    return bool(health["connected"] or health["last_error"])
