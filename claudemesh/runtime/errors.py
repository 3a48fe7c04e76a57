"""Storage errors of both engines. Errors of the database libraries are translated into these."""

from __future__ import annotations


class StorageError(Exception):
    """The base of all of these; the engine's own error is the `__cause__`."""


class StorageUnavailable(StorageError):
    """The database did not act, or the outcome is unknown: ask again with the same id."""


class StorageUnreachable(StorageUnavailable):
    """The database does not answer at all, whatever it is asked."""


class StorageFull(StorageUnavailable):
    """No space left: nothing was written. It works again once there is space."""


class StorageBroken(StorageError):
    """The disk refused to make a commit durable: this process must not write to the file any more."""


class StorageCorrupt(StorageError):
    """The file is not a healthy database of ours."""


class SchemaTooNew(StorageError):
    """The file was written by a newer version of this program."""
