"""Layout of `$CLAUDEMESH_HOME`: the one place that spells the paths of this host's files.

`cli/fast_send.py` and `sdk.py` repeat a part of it, because each must run without the rest of the package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from claudemesh.runtime.homes import expanded, user_home


def home() -> Path:
    """Return `$CLAUDEMESH_HOME`, or `~/.claudemesh`. `ExitWith` 78 for a user without a home directory."""
    chosen = os.environ.get("CLAUDEMESH_HOME")
    return expanded(Path(chosen)).absolute() if chosen else user_home() / ".claudemesh"


def broker_data_dir() -> Path:
    """Return the folder of the broker that runs on this host."""
    return home() / "broker"


def daemons_dir() -> Path:
    """Return the folder that holds one folder for each mesh of this host."""
    return home() / "daemon"


def current_mesh_file() -> Path:
    """Return the file with the choice of `claudemesh mesh use`."""
    return home() / "current_mesh"


def daemon_paths(slug: str) -> DaemonPaths:
    """Return the paths of a mesh's daemon."""
    return DaemonPaths(home(), slug)


class DaemonPaths(NamedTuple):
    """The files of the daemon for one mesh, below `<home>/daemon/<slug>/`.

    No dataclass: each command reads this, and `dataclasses` imports more than the rest of it.
    """

    home: Path
    slug: str

    @property
    def root(self) -> Path:
        """The daemon's own directory."""
        return self.home / "daemon" / self.slug

    @property
    def lock(self) -> Path:
        """Held by the running daemon; it decides who runs."""
        return self.root / "lock"

    @property
    def pid(self) -> Path:
        """The running daemon's process id, for people."""
        return self.root / "pid"

    @property
    def sock(self) -> Path:
        """The local API."""
        return self.root / "sock"

    @property
    def http_port(self) -> Path:
        """Number of the loopback port, when one answers."""
        return self.root / "http.port"

    @property
    def last_port(self) -> Path:
        """Number of the loopback port that was taken last; the next start takes it again."""
        return self.root / "http.port.last"

    @property
    def local_token(self) -> Path:
        """The bearer for the loopback."""
        return self.root / "local_token"

    @property
    def membership(self) -> Path:
        """Mesh, broker and member of this host."""
        return self.root / "membership.json"

    @property
    def broker_ca(self) -> Path:
        """Certificates of the authorities that are trusted for the broker, besides those of the system."""
        return self.root / "broker_ca.pem"

    @property
    def ended(self) -> Path:
        """The end of the membership, if it has ended (home/ended.py)."""
        return self.root / "ended.json"

    @property
    def keypair(self) -> Path:
        """The member's private keys."""
        return self.root / "keypair.json"

    @property
    def host_fingerprint(self) -> Path:
        """The host to which these files belong."""
        return self.root / "host_fingerprint.json"

    @property
    def peers(self) -> Path:
        """The directory as last seen, and the pinned keys."""
        return self.root / "peers.json"

    @property
    def topics(self) -> Path:
        """The topics and queues as last listed."""
        return self.root / "topics.json"

    @property
    def topic_keys(self) -> Path:
        """Keys of topics and queues."""
        return self.root / "topic_keys.json"

    @property
    def broker_features(self) -> Path:
        """Features that were last negotiated with the broker."""
        return self.root / "broker_features.json"

    @property
    def topic_subscriptions(self) -> Path:
        """Topics that this host created, subscribed to and unsubscribed from (daemon/topics/own.py)."""
        return self.root / "topic_subscriptions.json"

    @property
    def config(self) -> Path:
        """The user's settings."""
        return self.root / "config.toml"

    @property
    def outbox_db(self) -> Path:
        """Sends, from acceptance to the broker's word."""
        return self.root / "outbox.db"

    @property
    def inbox_db(self) -> Path:
        """Received messages."""
        return self.root / "inbox.db"

    @property
    def files_db(self) -> Path:
        """Files that this host shares, until their messages are at the broker."""
        return self.root / "files.db"

    @property
    def spool(self) -> Path:
        """Encrypted copies of files that are on their way."""
        return self.root / "spool"

    @property
    def texts(self) -> Path:
        """Received texts that were too long to come with their messages."""
        return self.root / "texts"

    @property
    def lived_clock(self) -> Path:
        """The position of the host-lived clock (runtime/lived.py)."""
        return self.root / "lived_clock.json"

    @property
    def inbox_position(self) -> Path:
        """A number ahead of every position in the inbox that was given out."""
        return self.root / "inbox_position"

    @property
    def schema_version(self) -> Path:
        """A mirror of the databases' own versions."""
        return self.root / "schema_version"

    @property
    def hooks(self) -> Path:
        """The user's hooks and hooks.toml."""
        return self.root / "hooks"

    @property
    def hooks_manifest(self) -> Path:
        """Hooks that run, and the limits of each."""
        return self.hooks / "hooks.toml"

    @property
    def start_options(self) -> Path:
        """The options of the last start, for `daemon restart`."""
        return self.root / "start.json"

    @property
    def log(self) -> Path:
        """JSON lines of a detached daemon."""
        return self.root / "daemon.log"
