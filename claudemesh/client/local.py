"""Client of this host's daemon, over its unix socket."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import claudemesh
from claudemesh.client.errors import (
    ApiError,
    ClientError,
    DaemonNotRunning,
    MembershipEnded,
    Unsupported,
    WrongHome,
    WrongUse,
)
from claudemesh.client.meshes import check_socket, choose_mesh, socket_path
from claudemesh.client.unix_http import exchange
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.peer import connect, distrust_peer

_ANSWER_S = 60.0
_PAGE = 500
_VERSION = "/v1/version"
# Variables that the clients of agents set for the commands that they run.
_SANDBOXES = ("CLAUDECODE", "CODEX_SANDBOX_NETWORK_DISABLED")


def connect_trusted(path: Path) -> socket.socket:
    """Connect to a daemon. `OSError` when none listens, `WrongHome` when another user does."""
    link = connect(path)
    reason = distrust_peer(link, path)
    if reason is not None:
        link.close()
        raise WrongHome("unsafe_home", f"{reason}; nothing was sent.")
    return link


class LocalClient:
    """Client of one mesh's daemon. Every method raises `DaemonNotRunning` or `ApiError`."""

    def __init__(self, slug: str | None = None) -> None:
        # A hook is told where its daemon is, and has no home to find it by.
        told = os.environ.get("CLAUDEMESH_DAEMON_SOCK") if slug is None else None
        self.slug = os.environ.get("CLAUDEMESH_MESH", "") if told else choose_mesh(slug)
        self.path = check_socket(Path(told)) if told else socket_path(self.slug)
        token = os.environ.get("CLAUDEMESH_CAPABILITY_TOKEN") if told else None
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def is_running(self) -> bool:
        """Tell whether a daemon answers. It is asked; its pid file may be left from an earlier run."""
        try:
            self.get(_VERSION)
        except DaemonNotRunning:
            return False
        return True

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET a route; parameters that are None are left out."""
        given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(given)}" if given else path, None)

    def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """GET a list whole, page after page."""
        items: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self.get(path, after=after, limit=_PAGE, **query)
            items += page["items"]
            after = page["next"]
            if after is None:
                return items

    def text(self, path: str) -> str:
        """GET a route that answers with text."""
        return self._exchange("GET", path, None).decode()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST an object to a route."""
        return self._request("POST", path, None if body is None else written(body))

    def delete(self, path: str) -> dict[str, Any]:
        """DELETE a route."""
        return self._request("DELETE", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        return _parse(self._exchange(method, path, body))

    def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = self.headers | ({} if body is None else {"Content-Type": "application/json"})
        try:
            with closing(connect_trusted(self.path)) as link:
                link.settimeout(_ANSWER_S)
                status, raw = exchange(link, method, path, body, headers)
        except OSError as error:
            raise no_answer(self.slug, error, os.environ) from error
        if status >= 400:
            refusal = ApiError(status, _parse(raw))
            if path != _VERSION and _lacks_route(refusal):
                self._check_version()
            raise refusal
        return raw

    def _check_version(self) -> None:
        """Raise `Unsupported` when the daemon is of another version."""
        daemon_version = str(self.get(_VERSION).get("daemon_version", "unknown"))
        if daemon_version != claudemesh.__version__:
            raise Unsupported(daemon_version, claudemesh.__version__)


def no_answer(slug: str, error: Exception, environment: Mapping[str, str]) -> ClientError:
    """Return the failure to name when a daemon was not reached: none runs, the membership of this host has
    ended, or a sandbox of a client forbids unix sockets."""
    is_sandboxed = any(environment.get(name) for name in _SANDBOXES)
    if isinstance(error, PermissionError) and error.errno == errno.EPERM and is_sandboxed:
        return ClientError(
            "sandboxed",
            "The sandbox of the agent's client forbids unix sockets, so the command cannot reach the daemon. "
            "Use the tools of the mesh (mesh_send, mesh_inbox), which run outside of the sandbox.",
            next="claudemesh integrate --help",
        )
    return membership_end(slug) or DaemonNotRunning(slug)


def membership_end(slug: str) -> MembershipEnded | None:
    """Return the end of this host's membership in a mesh, None while it lasts."""
    path = daemon_paths(slug).ended
    if not os.path.exists(path):  # noqa: PTH110 - False for a folder that cannot be read, where Path raises.
        return None
    # Imported here: most memberships last.
    from claudemesh.home.ended import load_ended

    try:
        ended = load_ended(path)
    except ExitWith:
        # The file is damaged, which the start of a daemon reports.
        return None
    if ended is None:
        return None
    failure = ended.exit(slug)
    return MembershipEnded(failure.error, failure.message, next=failure.next)


def _lacks_route(error: ApiError) -> bool:
    return error.status == 405 or error.body.get("unknown") == "route"


def written(body: Mapping[str, Any]) -> bytes:
    """Return the body of a request. `not_utf8`: a text of it cannot be written."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _not_utf8(body) from None


def _not_utf8(body: Mapping[str, Any]) -> ClientError:
    """Return the failure for a body with a text that no JSON holds: a path. Arguments are checked before."""
    path = next((value for value in body.values() if isinstance(value, str) and not _has_utf8(value)), None)
    which = "A text of the request" if path is None else path
    return WrongUse("not_utf8", f"{which} is not valid UTF-8. Use a path that is, such as a link to it.")


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse(raw: bytes) -> dict[str, Any]:
    # Not by orjson, which imports three times as much as the rest of this module.
    try:
        answer = json.loads(raw)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
