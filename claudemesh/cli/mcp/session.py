"""The session of an MCP server at its daemon: registered, renewed, and registered again when it was ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from claudemesh.client.errors import ApiError, ClientError

if TYPE_CHECKING:
    from claudemesh.client.local import LocalClient

_RENEWED_S: Final = 30.0
_LONGEST: Final = 64


class McpSession:
    """The session of this process. Every method may be called by any thread.

    The session survives its daemon: a daemon that was started again knows it, or it is registered again.
    """

    def __init__(self, mesh: str | None, cwd: Path) -> None:
        self._mesh = mesh
        self._lock = threading.RLock()
        self._about: dict[str, Any] = {
            "client": "mcp",
            "reach": "pull",
            "cwd": str(cwd),
            "pid": os.getpid(),
            **_named(cwd),
        }
        self._found: dict[str, Any] | None = None
        self._state = "idle"

    def client(self) -> LocalClient:
        """Return a client of the daemon. Raise `ClientError` when this host has joined no mesh."""
        # Imported here: the first answer needs no client, and its modules take a third of the start.
        from claudemesh.client.local import LocalClient

        return LocalClient(self._mesh)

    def describe(self, **about: str | None) -> None:
        """Note client, version, reach or the client's own id; a change registers the session again."""
        given = {name: _short(value) for name, value in about.items() if value}
        with self._lock:
            if any(self._about.get(name) != value for name, value in given.items()):
                self._about |= given
                self._found = None

    def be(self, state: str) -> None:
        """Note the activity of the session: idle or working."""
        with self._lock:
            if state != self._state:
                self._state = state
                self.renew()

    @property
    def name(self) -> str:
        """The name, registered if need be. Raise `ClientError`."""
        with self._lock:
            if self._found is None:
                self._found = self.client().post("/v1/sessions", self._about)
                if self._state != "idle":
                    self.renew()
            return str(self._found["name"])

    def forget(self) -> None:
        """Register again at the next use: the daemon does not know the session."""
        with self._lock:
            self._found = None

    def renew(self) -> None:
        """Renew the lease. A daemon that is down is tried again later."""
        with self._lock:
            if self._found is None:
                return
            try:
                path = f"/v1/sessions/{self._found['session_id']}/heartbeat"
                self.client().post(path, {"state": self._state})
            except ApiError as error:
                if error.code == "session_not_found":
                    self._found = None
            except ClientError:
                return

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until the server ends."""
        while not ended.wait(_RENEWED_S):
            self.renew()

    def end(self) -> None:
        """End the session, as far as the daemon answers."""
        with self._lock:
            try:
                if self._found is not None:
                    self.client().delete(f"/v1/sessions/{self._found['session_id']}")
            except ClientError:
                return


def _short(value: str) -> str:
    return "".join(one for one in value if one.isprintable())[:_LONGEST] or "mcp"


def _named(cwd: Path) -> dict[str, str]:
    """Return the name that the project gives its sessions, if it does."""
    path = cwd / ".claudemesh.toml"
    if not path.is_file():
        return {}
    # Imported here: few projects have the file.
    import tomllib

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("sessions", {}).get("name")
    except (OSError, ValueError, AttributeError):
        return {}
    return {"name": found} if isinstance(found, str) else {}
