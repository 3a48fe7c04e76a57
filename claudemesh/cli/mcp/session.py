"""The session of an MCP server at its daemon: registered, renewed, and registered again when it was ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from claudemesh.client.errors import ApiError, ClientError

if TYPE_CHECKING:
    from claudemesh.client.local import LocalClient

_RENEWED_S: Final = 30.0
# Until a daemon that is down, or a mesh that this host has not joined, is looked for again.
_SOON_S: Final = 2.0
_LONGEST: Final = 64
_BY_REACH: Final = ("pull", "turn", "push")


class McpSession:
    """The session of this process. Every method may be called by any thread.

    The session survives its daemon: a daemon that was started again knows it, or it is registered again.
    """

    def __init__(self, mesh: str | None, cwd: str) -> None:
        self._mesh = mesh
        self._lock = threading.RLock()
        self._about: dict[str, Any] = {
            "client": "mcp",
            "reach": "pull",
            # A name that is not UTF-8 cannot be sent: each of its bytes is replaced.
            "cwd": os.fsencode(cwd).decode(errors="replace"),
            "pid": os.getpid(),
            **_named(cwd),
        }
        # Set when the client has said its name and knows the tools. It is registered then, and can be woken.
        self.ready = threading.Event()
        self._found: dict[str, Any] | None = None
        # Whether the session was registered once, or its client is ready: it is then kept registered.
        self._is_wanted = False
        self._state = "idle"

    def client(self) -> LocalClient:
        """Return a client of the daemon. Raise `ClientError` when this host has joined no mesh."""
        # Imported here: the first answer needs no client, and its modules take a third of the start.
        from claudemesh.client.local import LocalClient

        return LocalClient(self._mesh)

    def reaches(self, reach: str) -> None:
        """Note that messages reach the session in this way, unless a better one is known already."""
        with self._lock:
            if _BY_REACH.index(reach) > _BY_REACH.index(self._about["reach"]):
                self.describe(reach=reach)

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
        return str(self._registered()["name"])

    @property
    def id(self) -> str:
        """The daemon's id of the session, registered if need be. Raise `ClientError`."""
        return str(self._registered()["session_id"])

    def _registered(self) -> Mapping[str, Any]:
        with self._lock:
            if self._found is None:
                self._found = self.client().post("/v1/sessions", self._about)
                self._is_wanted = True
                if self._state != "idle":
                    self.renew()
            # None when the daemon has ended it in between.
            return self._found or self._registered()

    @property
    def client_name(self) -> str:
        """The name that the client has said of itself."""
        return str(self._about["client"])

    def learn(self) -> str | None:
        """Take over the client's id of the session and the reach, as a hook has told them to the daemon.

        Return that id. Raise `ClientError`.
        """
        with self._lock:
            own = self.id if self._is_wanted else None
            for one in self.client().items("/v1/sessions") if own is not None else ():
                if one["session_id"] == own:
                    known = {"session_id": one["client_session_id"] or self._about.get("session_id")}
                    self._about |= {name: value for name, value in known.items() if value}
                    self._about["reach"] = max(one["reach"], self._about["reach"], key=_BY_REACH.index)
            return self._about.get("session_id")

    def forget(self) -> None:
        """Register again at the next use: the daemon does not know the session."""
        with self._lock:
            self._found = None

    def renew(self) -> None:
        """Renew the lease. A daemon that is down is tried again later."""
        with self._lock:
            try:
                if self._found is None:
                    # It was described differently since, or the daemon has ended it.
                    if self._is_wanted:
                        self._registered()
                    return
                path = f"/v1/sessions/{self._found['session_id']}/heartbeat"
                self.client().post(path, {"state": self._state})
            except ApiError as error:
                if error.code == "session_not_found":
                    self._found = None
            except ClientError:
                return

    def keep(self, ended: threading.Event) -> None:
        """Register the session when its client is ready, and renew its lease until the server ends."""
        while not self.ready.wait(_SOON_S):
            if ended.is_set():
                return
        self._is_wanted = True
        self.renew()
        while not ended.wait(_RENEWED_S if self._found is not None else _SOON_S):
            self.renew()

    def end(self) -> None:
        """End the session, as far as the daemon answers."""
        with self._lock:
            self._is_wanted = False
            try:
                if self._found is not None:
                    self.client().delete(f"/v1/sessions/{self._found['session_id']}")
            except ClientError:
                return


def _short(value: str) -> str:
    return "".join(one for one in value if one.isprintable())[:_LONGEST] or "mcp"


def _named(cwd: str) -> dict[str, str]:
    """Return the name that the project gives its sessions, if it does."""
    path = os.path.join(cwd, ".claudemesh.toml")  # noqa: PTH118
    if not os.path.isfile(path):  # noqa: PTH113
        return {}
    # Imported here: few projects have the file.
    import tomllib

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            found = tomllib.load(file).get("sessions", {}).get("name")
    except (OSError, ValueError, AttributeError):
        return {}
    return {"name": found} if isinstance(found, str) else {}
