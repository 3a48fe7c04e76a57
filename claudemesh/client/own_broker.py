"""The broker that runs on this host with a data directory: its addresses, its admin token and its process.

A broker may run as a user of its own. Root reads the files of such a broker, and no other user does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from claudemesh.client.errors import WrongHome
from claudemesh.home.paths import broker_data_dir
from claudemesh.runtime.files import FileLock, read_own, read_private
from claudemesh.runtime.homes import expanded
from claudemesh.runtime.own_address import dialled_urls
from claudemesh.runtime.urls import is_loopback

# The log of a broker in the background, in its data directory.
LOG_FILE = "broker.log"
_WILDCARDS = {"://0.0.0.0:": "://127.0.0.1:", "://[::]:": "://[::1]:"}


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """A broker as its file broker.json tells of it."""

    data_dir: Path
    # The address at which it listens, which may be a wildcard.
    url: str
    public_urls: tuple[str, ...]
    pid: int
    # The certificate that it shows (PEM), None without TLS.
    certificate: str | None = None
    # Its settings that hold no secret, by their names in broker.toml.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dial_url(self) -> str:
        """The address to dial on this host by a client that knows authorities.

        With TLS that is a public one: the certificate is made out to it, not to the loopback.
        """
        if self.url.startswith("wss:"):
            for url in self.public_urls:
                if url.startswith("wss:"):
                    return url
        return self.local_url

    @property
    def local_url(self) -> str:
        """The address to dial on this host by a client that knows the certificate."""
        url = self.url
        for wildcard, loopback in _WILDCARDS.items():
            url = url.replace(wildcard, loopback)
        return url

    @property
    def member_url(self) -> str:
        """The address for members of a mesh: a public one, if there is any."""
        return self.public_urls[0] if self.public_urls else self.dial_url

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses under which this host reaches it."""
        return (self.url, self.local_url, self.dial_url, *self.public_urls, *dialled_urls(self.url, ()))


def chosen_data_dir(given: Path | None) -> Path:
    """Return the data directory: the given one, that of the environment, or the default."""
    told = os.environ.get("CLAUDEMESH_BROKER_DATA_DIR")
    return expanded(given or (Path(told) if told else broker_data_dir())).absolute()


def find_broker(data_dir: Path) -> OwnBroker | None:
    """Return the broker that runs with a data directory, None without one.

    `WrongHome` when this user cannot read the directory.
    """
    try:
        if not FileLock(data_dir / "lock").is_held():
            return None
        told = orjson.loads(read_own(data_dir / "broker.json", for_root=True))
        public_urls, settings = _texts(told.get("public_urls")), told.get("settings")
        return OwnBroker(
            data_dir,
            told["url"],
            public_urls,
            int(told["pid"]),
            told.get("certificate"),
            settings if isinstance(settings, dict) else {},
        )
    except PermissionError as error:
        raise unreadable(data_dir) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def other_data_dirs(but: Path) -> list[Path]:
    """Return the data directories of other brokers of this user (for root: of all), as far as /proc shows
    them."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for entry in process.iterdir():
                with suppress(OSError):
                    opened = entry.readlink()
                    found |= {opened.parent} if opened.name == "lock" else set()
    found.discard(but)
    return sorted(folder for folder in found if _runs(folder))


def _runs(folder: Path) -> bool:
    try:
        return find_broker(folder) is not None
    except WrongHome:
        return False


def outward_url(url: str) -> str:
    """Return the address for other hosts of the broker that this host dials at a URL.

    A URL of the loopback becomes a public one of the broker that runs here as this user, or the address from
    which this machine reaches others, if the broker listens there. It stays when there is none.
    """
    if not is_loopback(urlsplit(url).hostname or ""):
        return url
    try:
        found = find_broker(chosen_data_dir(None))
    except WrongHome:
        return url
    if found is None or urlsplit(found.url).port != urlsplit(url).port:
        return url
    for outward in dialled_urls(found.url, found.public_urls):
        # Without a route to other hosts it is still a wildcard.
        is_wildcard = any(wildcard in outward for wildcard in _WILDCARDS)
        if not is_wildcard and not is_loopback(urlsplit(outward).hostname or ""):
            return outward
    return url


def is_used(data_dir: Path) -> bool:
    """Tell whether a broker uses a data directory, also one that is only starting."""
    try:
        return FileLock(data_dir / "lock").is_held()
    except PermissionError as error:
        raise unreadable(data_dir) from error
    except OSError:
        return False


def read_admin_token(data_dir: Path) -> str:
    """Return the admin token in a data directory. `FileNotFoundError` without one."""
    try:
        return read_private(data_dir / "admin_token", for_root=True).decode().strip()
    except PermissionError as error:
        raise unreadable(data_dir) from error


def owner_of(data_dir: Path) -> int:
    """Return the user whose broker may get the admin token of a data directory: for root, its owner."""
    own = os.geteuid()
    if own != 0:
        return own
    try:
        return data_dir.stat().st_uid
    except OSError:
        return own


def unreadable(data_dir: Path) -> WrongHome:
    """Return the error for a data directory of another user."""
    return WrongHome(
        "unreadable_data_dir",
        f"This user cannot read {data_dir}, the data directory of a broker. Run this as root or as the user "
        "of the broker, or name the broker with --broker and its token with --admin-token-file.",
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
