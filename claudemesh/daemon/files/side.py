"""The parts of a daemon that share and fetch files, as one group."""

from __future__ import annotations

from msgspec import Struct

from claudemesh.daemon.files.blob_server import OpenConnections
from claudemesh.daemon.files.fetching import Fetching
from claudemesh.daemon.files.listing import FileLists
from claudemesh.daemon.files.sharing import Sharing
from claudemesh.daemon.files.texts import LongTexts, WholeTexts
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.files.uploads import Uploads
from claudemesh.protocol.features import Features


class FileSide(Struct, kw_only=True):
    """The parts that share and fetch files. `blob_bytes` is the broker's limit of one blob."""

    sharing: Sharing
    uploads: Uploads
    fetching: Fetching
    lists: FileLists
    texts: LongTexts
    whole: WholeTexts
    threads: Threads
    connections: OpenConnections
    blob_bytes: int

    def link_up(self, features: Features) -> None:
        """Take the limit of a new link, and go on with uploads and with notes of downloads."""
        self.blob_bytes = features.blob_bytes
        self.uploads.wake()
        self.fetching.tell()

    def stop(self) -> None:
        """End all transfers behind the present part. They resume at the next start."""
        self.uploads.stop()
        self.fetching.stop()
        self.connections.end()
        self.threads.end()
