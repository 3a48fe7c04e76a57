"""The admin API of a broker: options, client and listings that its commands share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlencode

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.next_commands import again
from claudemesh.cli.options import ca_file_option
from claudemesh.cli.output import Column
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ApiError, ClientError, WrongUse
from claudemesh.client.own_broker import (
    OwnBroker,
    chosen_data_dir,
    find_broker,
    other_data_dirs,
    owner_of,
    read_admin_token,
)
from claudemesh.runtime.files import read_private

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_MOST_ITEMS = 1_000_000
_NOT_FOUND = "not_found"
# Number of names that a sentence lists when none is similar.
_LISTED = 10
_LISTED_FOLDERS = 3


def data_dir_option(function: F) -> F:
    """Add the option for the data directory of a broker on this host."""
    return click.option(
        "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Data directory of the broker."
    )(function)


def admin_options(function: F) -> F:
    """Add the options that name the broker and its admin token. On the broker's own host none is needed."""
    for option in (
        data_dir_option,
        click.option("--broker", "url", metavar="URL", help="URL of a broker on another host."),
        click.option(
            "--admin-token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="File with the admin token.",
        ),
        click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine."),
        ca_file_option,
    ):
        function = option(function)
    return function


class AdminClient:
    """The admin API of the broker that the options name."""

    def __init__(
        self,
        data_dir: Path | None,
        url: str | None,
        admin_token_file: Path | None,
        insecure: bool,
        ca_file: Path | None,
    ) -> None:
        folder = chosen_data_dir(data_dir)
        self._broker = (
            own_client(_running_at(folder), ca_file)
            if url is None
            else BrokerClient(url, insecure=insecure, ca_file=ca_file)
        )
        self._token = read_token(admin_token_file, folder, self._broker, is_named=url is not None)

    @property
    def url(self) -> str:
        """The address of the broker."""
        return self._broker.url

    def listed(self, path: str, columns: Sequence[str], **query: Any) -> dict[str, Any]:
        """Return a list below /v1/admin, read page after page. Its items have these columns."""
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

    def about_mesh(self, slug: str, error: ApiError) -> ApiError:
        """Return the error of a request about a mesh, for an unknown one with the meshes there are."""
        if error.code != _NOT_FOUND:
            return error
        known = [item["slug"] for item in self.listed("meshes", ("slug",))["items"]]
        if slug in known:
            return error
        return _with_names(error, slug, known, "The meshes are", "claudemesh broker mesh list")

    def about_member(self, slug: str, name: str, error: ApiError) -> ApiError:
        """Return the error of a request about a member, for an unknown one with the members there are."""
        found = self.about_mesh(slug, error)
        if found is not error or error.code != _NOT_FOUND:
            return found
        known = [item["name"] for item in self.listed("members", ("name",), mesh=slug)["items"]]
        return _with_names(error, name, known, "The members are", f"claudemesh broker member list {slug}")

    def about_job(self, name: str, error: ApiError) -> ApiError:
        """Return the error of a request about a job, for an unknown one with the jobs there are."""
        if error.code != "invalid_job":
            return error
        known = [item["job"] for item in self.listed("jobs", ("job",))["items"]]
        unknown = ApiError(error.status, {**error.body, "message": f"There is no job {name}."})
        return _with_names(unknown, name, known, "The jobs are", "claudemesh broker job list")

    def post(self, path: str, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """POST to a route below /v1/admin, and return the answer."""
        from claudemesh.protocol.http_replies import object_with

        return self.ask(path, body, object_with(path, *names))

    def ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """POST to a route below /v1/admin, and return what `read` makes of the answer."""
        return self._broker.ask("POST", f"/v1/admin/{path}", body, read, token=self._token)


def _with_names(error: ApiError, wanted: str, known: Sequence[str], listing: str, command: str) -> ApiError:
    near = get_close_matches(wanted, known)
    shown = ", ".join(known[:_LISTED]) + (" and others" if len(known) > _LISTED else "")
    hint = f"Did you mean {' or '.join(near)}?" if near else f"{listing} {shown}." if known else ""
    message = f"{error.message} {hint}".rstrip()
    return ApiError(error.status, {**error.body, "message": message, "near": near, "next": command})


def _running_at(folder: Path) -> OwnBroker:
    found = find_broker(folder)
    if found is None:
        raise no_broker(folder)
    return found


def own_client(found: OwnBroker, ca_file: Path | None = None) -> BrokerClient:
    """Return a client of the broker that runs on this host.

    Its certificate is known here, so that neither an authority nor a public address is needed.
    """
    if found.certificate is None or ca_file is not None:
        return BrokerClient(found.dial_url, insecure=True, ca_file=ca_file)
    return BrokerClient(found.local_url, certificate=found.certificate)


def no_broker(folder: Path) -> ClientError:
    """Return the error for a data directory without a running broker."""
    return ClientError(
        "no_broker",
        f"No broker runs with the data directory {folder}. {_elsewhere(folder)}Start one, or name "
        "another with --broker.",
        next="claudemesh broker up -d",
    )


def _elsewhere(folder: Path) -> str:
    """Return a sentence that names the data directories of other brokers of this host, "" without any."""
    others = other_data_dirs(folder)
    if not others:
        return ""
    listed = ", ".join(f"--data-dir {shlex.quote(str(other))}" for other in others[:_LISTED_FOLDERS])
    more = " and others" if len(others) > _LISTED_FOLDERS else ""
    return f"Another one runs: name it with {listed}{more}. "


def read_token(path: Path | None, folder: Path, broker: BrokerClient, *, is_named: bool) -> str:
    """Return the admin token: from a file, the environment, or the data directory of the broker on this host.

    The token of the data directory is sent to that broker only: `WrongUse` for another one, `WrongHome` when
    another user listens at its address. `is_named` tells whether --broker names the broker: then a broker of
    this host is not the remedy for a missing token.
    """
    given = os.environ.get("CLAUDEMESH_BROKER_ADMIN_TOKEN")
    if path is not None:
        return _checked(_read_given(path), str(path))
    if given:
        return _checked(given, "CLAUDEMESH_BROKER_ADMIN_TOKEN")
    found = find_broker(folder)
    with_token = again(sys.argv[1:], "--admin-token-file", "FILE")
    try:
        broker.check_own(owner_of(folder), () if found is None else found.urls)
    except WrongUse as error:
        raise WrongUse(error.code, error.message, next=with_token) from error
    try:
        return read_admin_token(folder)
    except FileNotFoundError as error:
        if is_named:
            raise WrongUse(
                "no_admin_token",
                f"The admin token of the broker at {broker.url} is needed. It is the file admin_token in the "
                "data directory of that broker. Copy it to this host, and name the copy with "
                "--admin-token-file, or set CLAUDEMESH_BROKER_ADMIN_TOKEN.",
                next=with_token,
            ) from error
        raise WrongUse(
            "no_admin_token",
            f"There is no admin token in the data directory {folder}. {_elsewhere(folder)}Use "
            "--admin-token-file, or set CLAUDEMESH_BROKER_ADMIN_TOKEN, or start a broker as this user.",
            next="claudemesh broker up -d",
        ) from error


def _read_given(path: Path) -> str:
    try:
        return read_private(path).decode("ascii", "replace").strip()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise WrongUse("no_admin_token", f"The file of the admin token is not there: {path}.") from error


def _checked(token: str, place: str) -> str:
    if not token or not token.isascii() or not token.isprintable():
        text = f"{place} holds no admin token. An admin token is one line of ASCII characters."
        raise WrongUse("no_admin_token", text)
    return token


def print_list(
    client: AdminClient,
    as_json: bool,
    path: str,
    columns: tuple[str, ...],
    titles: Mapping[str, Column] = MappingProxyType({}),
    **query: Any,
) -> None:
    """Print a list of the admin API: as JSON, or as a table of these fields.

    `titles` are the columns of fields whose own name does not fit.
    """
    try:
        answer = client.listed(path, columns, **query)
    except ApiError as error:
        raise client.about_mesh(str(query.get("mesh")), error) from error
    if as_json:
        output.print_items(answer["items"])
        return
    shown = [titles.get(name, name) for name in columns]
    output.table(shown, [[_shown(item[name]) for name in columns] for item in answer["items"]])


def _shown(value: object) -> object:
    return orjson.dumps(value).decode() if isinstance(value, dict) else value
