"""Storage errors of both engines. Errors of the database libraries are translated into these."""

from __future__ import annotations


class StorageError(Exception):
    """Base class of the storage errors. The engine's own error is the `__cause__`."""


class StorageUnavailable(StorageError):
    """The database did nothing, or the outcome is unknown: try again with the same id."""


class StorageUnreachable(StorageUnavailable):
    """The database cannot be reached."""


class StorageFull(StorageUnavailable):
    """No space is left: nothing was written. A later try succeeds when there is space."""


class StorageBroken(StorageError):
    """The disk failed to make a commit durable. This process must not write to the file any more."""


class StorageCorrupt(StorageError):
    """The file is damaged, or not a database of this program."""


class SchemaTooNew(StorageError):
    """The file was written by a newer version of this program."""
