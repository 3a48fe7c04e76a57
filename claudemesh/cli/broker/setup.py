"""`claudemesh broker setup`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker import setup_plan
from claudemesh.cli.broker.setup_plan import RUN, TLS, Plan, Tls, broker_toml, compose_file, start_commands
from claudemesh.cli.next_commands import again
from claudemesh.cli.options import ca_file_option, default_name, json_option
from claudemesh.client.errors import ApiError, WrongHome, WrongUse
from claudemesh.client.own_broker import chosen_data_dir
from claudemesh.runtime.exits import CANNOT_CREATE, ExitWith
from claudemesh.runtime.homes import expanded

T = TypeVar("T", bound=str)

_INVITE_S = 86_400
_FILE = "broker.toml"
_PEM = (("tls_cert", "File of the certificate chain"), ("tls_key", "File of its private key"))


@click.command()
@click.option(
    "--public-url",
    "names",
    metavar="NAME|URL",
    multiple=True,
    help="Name by which other hosts dial the broker, or its URL. May be repeated.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Address to listen at. Default: all addresses, or the loopback behind a proxy; port 7900.",
)
@click.option("--tls", type=click.Choice(TLS), help="The broker's own files, a proxy in front, or none.")
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate chain (PEM).")
@click.option(
    "--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Private key of the certificate (PEM)."
)
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Data directory.")
@click.option(
    "--database-url", metavar="URL", help="Postgres database, instead of SQLite in the data directory."
)
@click.option("--run", "run_as", type=click.Choice(RUN), help="How the broker runs.")
@click.option(
    "--mesh", "slug", metavar="SLUG", default="team", show_default=True, help="Slug of the first mesh."
)
@click.option("--no-mesh", is_flag=True, help="Make no mesh and no invite.")
@click.option("--name", metavar="NAME", help="Name of this host in the mesh. Default: the host name.")
@ca_file_option
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults for options that are not given.")
@click.option("--force", is_flag=True, help="Replace a broker.toml that differs.")
@json_option
@answers.action(
    file="string?",
    changed="boolean",
    listen="string",
    public_urls="array",
    data_dir="string",
    membership="object?",
    service="string?",
    invite="string?",
)
def setup(yes: bool, force: bool, as_json: bool, **given: Any) -> int:
    """Set up a broker: its settings, the first mesh, and the first invite.

    On a terminal it asks four questions: by which name other hosts dial the broker, who ends TLS, where the
    data is, and how the broker runs. It writes DIR/broker.toml, prints the unit or compose file and the
    commands that start the broker, and makes the mesh with this host as its owner. It starts nothing.

    A second run with the same answers changes nothing, and prints a new invite.

    \b
    Examples:
      claudemesh broker setup
      claudemesh broker setup --yes --public-url mesh.example.org --tls proxy
      claudemesh broker setup --yes --public-url 10.0.0.5 --run foreground
    """
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongUse(
            "no_terminal",
            "The questions of `broker setup` need a terminal. Give the answers as options, with --yes.",
            next=again(sys.argv[1:], "--yes"),
        )
    slug = None if given["no_mesh"] else given["slug"]
    plan = _plan(_Asker(yes), given)
    changed = _write(plan, force=force)
    made = _Made(None, None)
    if slug is not None and plan.run != "compose":
        made = _make_mesh(plan, slug, given["name"] or default_name(), given["ca_file"])
    return _report(plan, made, slug, changed, as_json)


@dataclass(frozen=True, slots=True)
class _Made:
    """The membership of this host as it is shown, if it was made now, and the invite."""

    membership: dict[str, Any] | None
    invite: str | None


class _Asker:
    """Asks on stderr, so that stdout holds the result only; with --yes it takes the default."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes

    def text(self, question: str, default: str) -> str:
        """Return an answer in words."""
        if self._yes:
            return default
        answer: str = click.prompt(question, default=default, err=True)
        return answer.strip()

    def choice(self, question: str, choices: tuple[T, ...], default: T) -> T:
        """Return one of the choices."""
        if self._yes:
            return default
        answer: T = click.prompt(question, type=click.Choice(choices), default=default, err=True)
        return answer


def _plan(ask: _Asker, given: dict[str, Any]) -> Plan:
    """Return the plan of the options, and of the answers to what they leave open."""
    names = given["names"] or (ask.text("Name by which other hosts dial this broker", _own_address()),)
    tls: Tls = given["tls"] or (
        "files"
        if given["tls_cert"]
        else ask.choice("TLS: files of the broker, a proxy in front, or none", TLS, _default_tls(names))
    )
    cert, key = (_pem(ask, given[name], question) if tls == "files" else None for name, question in _PEM)
    data_dir, database_url = _place(ask, given["data_dir"], given["database_url"])
    run_as = given["run_as"] or ask.choice("Run it as a service, by compose, or by hand", RUN, "service")
    try:
        listen = given["listen"] or setup_plan.listen_at(names[0], tls)
        port = int(listen.rpartition(":")[2])
        urls = tuple(setup_plan.public_url(name, tls, port) for name in names)
    except ValueError as error:
        raise WrongUse("invalid_broker_url", f"{error} Give --public-url a name, or a URL.") from error
    return Plan(data_dir, listen, urls, tls, cert, key, database_url, run_as)


def _pem(ask: _Asker, given: Path | None, question: str) -> Path:
    path = given or Path(ask.text(question, ""))
    if path == Path():
        raise WrongUse("no_certificate", "TLS by files needs --tls-cert and --tls-key.")
    return expanded(path).absolute()


def _place(ask: _Asker, data_dir: Path | None, database_url: str | None) -> tuple[Path, str | None]:
    """Return the data directory, and the URL of a database in its place."""
    folder = chosen_data_dir(data_dir)
    if database_url is not None or data_dir is not None:
        return folder, database_url
    place = ask.text("Data: a directory for SQLite, or the URL of a Postgres database", str(folder))
    return (folder, place) if "://" in place else (expanded(Path(place)).absolute(), None)


def _own_address() -> str:
    """Return the address from which this machine reaches others, else the loopback."""
    from claudemesh.runtime.own_address import dialled_urls
    from claudemesh.runtime.urls import split_broker_url

    (url,) = dialled_urls(f"ws://0.0.0.0:{setup_plan.PORT}", ())
    host = split_broker_url(url).hostname or ""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - no route to other hosts


def _default_tls(names: tuple[str, ...]) -> Tls:
    from claudemesh.runtime.urls import is_address

    return "none" if is_address(names[0]) else "proxy"


def _write(plan: Plan, *, force: bool) -> bool:
    """Write broker.toml; return whether it has changed. `ExitWith` 73 for another one that is there."""
    from claudemesh.runtime.files import make_private_dir, write_atomic

    path, text = plan.data_dir / _FILE, broker_toml(plan)
    _check(text, path)
    known = path.read_text() if path.exists() else None
    if known == text or plan.run == "compose":
        # A container takes its settings from the compose file.
        return False
    if known is not None and not force:
        raise ExitWith(
            CANNOT_CREATE,
            "file_exists",
            f"{path} has other settings. Nothing was changed: use --force to replace them, or another "
            "--data-dir.",
        )
    make_private_dir(plan.data_dir)
    write_atomic(path, text.encode())
    return True


def _check(text: str, path: Path) -> None:
    """Refuse settings that no broker starts with, before anything is written. `ExitWith` 78."""
    from claudemesh.broker.settings import INVALID, read_settings

    with TemporaryDirectory() as folder:
        trial = Path(folder) / _FILE
        trial.write_text(text)
        try:
            read_settings({"data_dir": path.parent}, {}, trial).require(INVALID)
        except ExitWith as error:
            message = error.message.replace(str(trial), str(path))
            raise ExitWith(error.code, error.error, message) from error


def _make_mesh(plan: Plan, slug: str, name: str, ca_file: Path | None) -> _Made:
    """Make the mesh, unless this host is in it, and an invite, at a broker that runs for this only.

    It listens at a free port of the loopback without TLS, so that neither the name nor the certificate has to
    lead here yet. A broker that runs with the data directory is used instead.
    """
    from claudemesh.broker.settings import load_settings
    from claudemesh.client.own_broker import find_broker, read_admin_token
    from claudemesh.runtime.event_loop import run as run_loop
    from claudemesh.runtime.hardening import protect_memory
    from claudemesh.runtime.logs import setup_logging

    protect_memory()
    first = partial(_first_invite, plan, slug, name, ca_file)
    found = find_broker(plan.data_dir)
    if found is not None:
        return first(found.dial_url, read_admin_token(plan.data_dir))
    setup_logging("warning", None)
    settings = load_settings({"data_dir": plan.data_dir, "listen": "127.0.0.1:0"}, {})
    settings = replace(settings, tls_cert=None, tls_key=None)

    async def serve() -> _Made:
        from claudemesh.broker.app import Broker

        broker = Broker(settings)
        await broker.start()
        try:
            return await asyncio.to_thread(first, broker.url, broker.admin_token)
        finally:
            await broker.stop()

    return run_loop(serve)


def _first_invite(
    plan: Plan, slug: str, name: str, ca_file: Path | None, broker_url: str, token: str
) -> _Made:
    """Make the mesh, unless this host is in it, and an invite with the address for other hosts."""
    from claudemesh.client.broker import BrokerClient
    from claudemesh.client.join import create_mesh, make_invite
    from claudemesh.home.membership import change_address, load_membership
    from claudemesh.home.paths import daemon_paths

    paths = daemon_paths(slug)
    broker = BrokerClient(broker_url, insecure=True, ca_file=ca_file)
    is_new = not paths.membership.exists()
    if is_new:
        create_mesh(broker, token, slug, name, ca_file=ca_file)
    _, link = make_invite(slug, broker_url=plan.public_urls[0], role="member", uses=1, expires_in_s=_INVITE_S)
    try:
        broker.register_invite(link)
    except ApiError as error:
        if error.code != "mesh_not_found":
            raise
        text = f"This host is in a mesh {slug} of another broker. Choose another name with --mesh."
        raise WrongHome("already_member", text) from error
    # The broker has the mesh, so this host dials it at its present address from now on.
    known = load_membership(paths.membership)
    if known.broker_url not in plan.public_urls:
        change_address(paths.membership, plan.public_urls[0], known.moved_at_ms)
    return _Made(load_membership(paths.membership).shown() if is_new else None, link)


def _report(plan: Plan, made: _Made, slug: str | None, changed: bool, as_json: bool) -> int:
    """Print what was made, the unit or compose file, the invite, and the commands that follow."""
    path = plan.data_dir / _FILE
    if plan.is_unencrypted:
        output.note(
            f"{plan.public_urls[0]} is not encrypted: use it in a network that you trust. Hosts join with "
            "--insecure."
        )
    file = _service_file(plan)
    answer = {
        "file": None if plan.run == "compose" else str(path),
        "changed": changed,
        "listen": plan.listen,
        "public_urls": list(plan.public_urls),
        "data_dir": str(plan.data_dir),
        "membership": made.membership,
        "service": file,
        "invite": made.invite,
    }
    is_written = plan.run != "compose"
    lines = [f"{'wrote' if changed else 'unchanged:'} {path}"] if is_written else ["# compose.yaml"]
    if made.membership is not None:
        lines.append(f"created mesh {slug} with this host as {made.membership['name']}")
    lines += ["", file][not is_written :] if file is not None else []
    lines += ["", f"invite: {made.invite}"] if made.invite is not None else []
    following = start_commands(plan, slug)
    output.print_answer(as_json, answer, "\n".join(lines), next=following, made=made.invite)
    if made.invite is not None and not as_json and sys.stdout.isatty():
        from claudemesh.cli.qr import print_qr

        print_qr(made.invite)
    return 0


def _service_file(plan: Plan) -> str | None:
    """Return the unit or compose file; None for the foreground."""
    if plan.run == "compose":
        return compose_file(plan).rstrip()
    if plan.run == "foreground":
        return None
    from claudemesh.cli.broker.install_service import service_file
    from claudemesh.cli.service.install import Wish

    return service_file(plan.data_dir, Wish(only_print=True), None)[0].rstrip()
