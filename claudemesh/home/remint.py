"""Exchange of a member's files for those of a new member on the same host (docs/spec/lifecycle.md, Clones).

The new keys and the new membership are made in the folder `remint`. A membership.json there means that the
new member exists, so the exchange is carried out, at the next start if not at once. The files of the old
member are kept in a folder of their own.

Crash story: before membership.json is in `remint`, the old member stays. After it, `finish` goes on from any
step: the old files go aside while the new keys are still in `remint`, then the new keys come, then the
membership is replaced.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from claudemesh.home.host_file import keep_host, load_host
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import make_private_dir, read_private, sync_dir, write_atomic

# Files of a member, with their databases' side files. Pins, settings, hooks and topics are the host's.
_OF_A_MEMBER = ("keypair", "outbox.db", "inbox.db", "inbox_position", "topic_subscriptions")


@dataclass(frozen=True, slots=True)
class Remint:
    """The folder `remint` of a mesh."""

    paths: DaemonPaths

    @property
    def folder(self) -> Path:
        """The folder with the files of the new member."""
        return self.paths.root / "remint"

    @property
    def keypair(self) -> Path:
        """The new keys."""
        return self.folder / self.paths.keypair.name

    @property
    def membership(self) -> Path:
        """The new membership. Its existence decides."""
        return self.folder / self.paths.membership.name

    @property
    def name(self) -> Path:
        """The name that was asked for, where one was."""
        return self.folder / "name"

    @property
    def host(self) -> Path:
        """The host to which the new files belong."""
        return self.folder / self.paths.host_fingerprint.name

    def finish(self) -> Path | None:
        """Carry out an exchange that was decided; returns the folder of the old files, None without one.

        The caller holds the lock of the mesh. `OSError`.
        """
        if not self.membership.exists():
            if not self.keypair.exists():
                # The rest of an exchange that was carried out, or of a try without keys.
                shutil.rmtree(self.folder, ignore_errors=True)
            return None
        root = self.paths.root
        old = root / f"before-remint-{load_membership(self.membership).member_id}"
        make_private_dir(old)
        if self.keypair.exists():
            Keyring.load(self.keypair)
            for entry in sorted(root.iterdir()):
                if entry.name.startswith(_OF_A_MEMBER):
                    entry.rename(old / entry.name)
            write_atomic(old / self.paths.membership.name, read_private(self.paths.membership))
            sync_dir(old)
            sync_dir(root)
            failpoint("remint.after_aside")
            self.keypair.rename(self.paths.keypair)
            self._sync()
            failpoint("remint.after_keys")
        host = load_host(self.host)
        if host is not None:
            keep_host(self.paths.host_fingerprint, host)
        failpoint("remint.after_host")
        self.membership.rename(self.paths.membership)
        self._sync()
        failpoint("remint.after_membership")
        shutil.rmtree(self.folder)
        return old

    def _sync(self) -> None:
        """Make a file durable that came from the folder: under its new name first."""
        sync_dir(self.paths.root)
        sync_dir(self.folder)
