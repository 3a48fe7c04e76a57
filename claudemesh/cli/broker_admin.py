"""`claudemesh broker mesh|member|invite|audit`: a broker's admin API, for the holder of its token."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.options import json_option
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError
from claudemesh.home.paths import broker_data_dir
from claudemesh.runtime.files import read_own, read_private

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_MOST_ITEMS = 1_000_000


def admin_options(function: F) -> F:
    """Which broker, and its token; on the broker's own host neither is needed."""
    for option in (
        click.option(
            "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where it keeps its data."
        ),
        click.option("--broker", "url", metavar="URL", help="Another host's broker."),
        click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="FILE"),
        click.option("--insecure", is_flag=True, help="Allow ws:// to another machine."),
    ):
        function = option(function)
    return function


class AdminClient:
    """The admin API of the broker that the options name."""

    def __init__(
        self, data_dir: Path | None, url: str | None, admin_token_file: Path | None, insecure: bool
    ) -> None:
        folder = data_dir or broker_data_dir()
        self._broker = BrokerClient(url or _running_at(folder), insecure=insecure)
        self._token = read_token(admin_token_file, folder, self._broker)

    def listed(self, path: str, columns: Sequence[str], **query: Any) -> dict[str, Any]:
        """GET a list below /v1/admin whose items have these columns: whole, page after page."""
        # Imported here: parsers need the protocol, and most commands do not.
        from claudemesh.protocol.http_replies import table_with

        read = table_with(path, columns)
        items: list[Any] = []
        following: dict[str, str] = {}
        while True:
            where = f"/v1/admin/{path}?{urlencode(query | following)}"
            page = self._broker.ask("GET", where, None, read, token=self._token)
            items += page["items"]
            if len(items) > _MOST_ITEMS:
                raise self._broker.bad_answer("its list does not end")
            if page["next"] is None or following.get("after") == page["next"]:
                return {"items": items, "next": None}
            following = {"after": page["next"]}

    def post(self, path: str, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """POST to a route below /v1/admin whose answer has fields of these names."""
        from claudemesh.protocol.http_replies import object_with

        return self.ask(path, body, object_with(path, *names))

    def ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """POST to a route below /v1/admin, and return what `read` makes of the answer."""
        return self._broker.ask("POST", f"/v1/admin/{path}", body, read, token=self._token)


def _running_at(folder: Path) -> str:
    try:
        url: str = orjson.loads(read_own(folder / "broker.json"))["url"]
    except (OSError, ValueError, KeyError) as error:
        raise ClientError(
            "no_broker",
            f"No broker runs on {folder}: start it with `claudemesh broker up`, or name one with --broker.",
        ) from error
    return url.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")


def read_token(path: Path | None, folder: Path, broker: BrokerClient) -> str:
    """Return the admin token: from a file, the environment, or the data dir of a broker of this user.

    The token that is found by itself is for this user's broker alone, and no other process may get it.
    """
    given = os.environ.get("CLAUDEMESH_BROKER_ADMIN_TOKEN")
    if path is None and given:
        return given
    if path is None:
        broker.check_own()
    try:
        return read_private(path or folder / "admin_token").decode().strip()
    except FileNotFoundError as error:
        raise ClientError(
            "no_admin_token",
            "This needs the broker's admin token: give --admin-token-file, or set "
            "CLAUDEMESH_BROKER_ADMIN_TOKEN, or start a broker as this user with `claudemesh broker up`.",
        ) from error


@click.group()
def mesh() -> None:
    """The meshes of a broker; `claudemesh mesh create` makes one."""


@mesh.command("list")
@admin_options
@json_option
def list_meshes(as_json: bool, **which: Any) -> None:
    """List meshes and their policies."""
    _list(AdminClient(**which), as_json, "meshes", ("slug", "online", *_POLICIES))


_POLICIES = (
    "clone_concurrency_policy",
    "dedupe_retention_mode",
    "dedupe_retention_days",
    "message_retention_days",
    "rate_limit_per_minute",
    "member_rate_limit_per_minute",
    "member_bytes_per_minute",
    "stored_bytes",
    "member_stored_bytes",
    "member_topics",
    "member_subscriptions",
    "member_invites",
    "audit_retention_days",
    "audit_events",
)


@mesh.command("set")
@click.argument("slug")
@click.option(
    "--clone-concurrency-policy", type=click.Choice(["prefer_newest", "prefer_oldest", "allow_concurrent"])
)
@click.option("--dedupe-retention-mode", type=click.Choice(["retention_scoped", "permanent"]))
@click.option("--dedupe-retention-days", type=int)
@click.option("--message-retention-days", type=int)
@click.option("--rate-limit-per-minute", type=int, help="Sends of the whole mesh, default 120000.")
@click.option("--member-rate-limit-per-minute", type=int, help="Sends of each member, default 30000.")
@click.option("--member-bytes-per-minute", type=int, help="Bytes of each member's sends, default 256 MiB.")
@click.option("--stored-bytes", type=int, help="Bytes of all messages that are kept, default 128 GiB.")
@click.option("--member-stored-bytes", type=int, help="Bytes of each member's messages, default 16 GiB.")
@click.option("--member-topics", type=int, help="Topics and queues that each member creates, default 1000.")
@click.option("--member-subscriptions", type=int, help="Subscriptions of each member, default 10000.")
@click.option("--member-invites", type=int, help="Open invites of each member, default 1000.")
@click.option("--audit-retention-days", type=int, help="How long audit events are kept, default 365.")
@click.option("--audit-events", type=int, help="How many audit events are kept, default 100000.")
@admin_options
@json_option
def set_mesh(slug: str, as_json: bool, **options: Any) -> int:
    """Change a mesh's policies; connections made from then on go by them."""
    changes = {name: options.pop(name) for name in _POLICIES}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise click.UsageError("Say what to set: see --help.")
    answer = AdminClient(**options).post("meshes/set", {"mesh": slug, **given})
    return output.tell(as_json, answer, f"set {', '.join(given)} of {slug}")


@click.group()
def member() -> None:
    """The members of a mesh."""


@member.command("list")
@click.argument("slug")
@admin_options
@json_option
def list_members(slug: str, as_json: bool, **which: Any) -> None:
    """List everybody who ever was a member."""
    columns = ("name", "role", "status", "online", "last_seen_at", "member_id")
    _list(AdminClient(**which), as_json, "members", columns, mesh=slug)


@member.command("revoke")
@click.argument("slug")
@click.argument("who", metavar="NAME|KEY")
@admin_options
@json_option
def revoke_member(slug: str, who: str, as_json: bool, **which: Any) -> int:
    """Refuse a member from now on: its daemon ends with exit 77. What it sent before stays."""
    answer = AdminClient(**which).post("members/revoke", {"mesh": slug, "member": who}, "name")
    return output.tell(as_json, answer, f"revoked {output.safe(answer['name'])}")


@click.group()
def invite() -> None:
    """The invites of a mesh; `claudemesh invite create` makes one."""


@invite.command("list")
@click.argument("slug")
@admin_options
@json_option
def list_invites(slug: str, as_json: bool, **which: Any) -> None:
    """List the invites that this broker has heard of."""
    columns = ("invite_id", "role", "uses", "max_uses", "expires_at", "revoked_at")
    _list(AdminClient(**which), as_json, "invites", columns, mesh=slug)


@invite.command("revoke")
@click.argument("slug")
@click.argument("invite_id", metavar="ID")
@admin_options
@json_option
def revoke_invite(slug: str, invite_id: str, as_json: bool, **which: Any) -> int:
    """Let nobody join by an invite any more."""
    answer = AdminClient(**which).post("invites/revoke", {"mesh": slug, "invite_id": invite_id})
    return output.tell(as_json, answer, f"revoked {invite_id}")


@click.command()
@click.argument("slug")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@admin_options
@json_option
def audit(slug: str, limit: int, as_json: bool, **which: Any) -> None:
    """Show what happened to a mesh, the newest first."""
    columns = ("created_at", "kind", "member_id", "data")
    _list(AdminClient(**which), as_json, "audit", columns, mesh=slug, limit=limit)


@click.command()
@admin_options
@json_option
def check(as_json: bool, **which: Any) -> int:
    """Hold every message to what an accept leaves behind; exit 1 when something is missing or left over.

    It reads in small batches, and slows nobody down.
    """
    from claudemesh.protocol.http_replies import check_report

    answer = AdminClient(**which).ask("jobs/run", {"job": "orphan-check"}, check_report)
    if as_json:
        output.print_json(answer)
    else:
        for finding in answer["findings"]:
            output.say(f"{finding['kind']}  {finding['broker_message_id']}")
        output.say(f"looked at {answer['count']} rows, found {answer['found']}")
    return 1 if answer["found"] else 0


@click.group()
def job() -> None:
    """Jobs of a broker: message-sweep, dedupe-sweep, ephemeral-reaper, orphan-check."""


@job.command("list")
@admin_options
@json_option
def list_jobs(as_json: bool, **which: Any) -> None:
    """List the jobs with their last run: when by the wall clock, and how many seconds of uptime ago."""
    columns = ("job", "every_s", "last_run_at", "age_s", "count", "found")
    _list(AdminClient(**which), as_json, "jobs", columns)


@job.command("run")
@click.argument("name")
@admin_options
@json_option
def run_job(name: str, as_json: bool, **which: Any) -> int:
    """Run a job now, and wait for its end."""
    answer = AdminClient(**which).post("jobs/run", {"job": name}, "count")
    return output.tell(as_json, answer, f"{name}: {answer['count']}")


def _list(client: AdminClient, as_json: bool, path: str, columns: tuple[str, ...], **query: Any) -> None:
    answer = client.listed(path, columns, **query)
    if as_json:
        output.print_json(answer)
        return
    output.table(columns, [[_shown(item[name]) for name in columns] for item in answer["items"]])


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return orjson.dumps(value).decode() if isinstance(value, dict) else value
