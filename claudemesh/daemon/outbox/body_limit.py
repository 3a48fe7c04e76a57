"""Size limit of a sealed body, as the broker announces it."""

from __future__ import annotations

from claudemesh.protocol.wire import DEFAULT_INLINE_BYTES


class BodyLimit:
    """The broker's `inline_bytes`. A send is accepted by `last`, which is known without the broker.

    The drain uses `agreed`, which is None before the first link of this run: no row dies because of an old
    limit.
    """

    def __init__(self, last: int = DEFAULT_INLINE_BYTES) -> None:
        self._last = last
        self._agreed: int | None = None

    @property
    def last(self) -> int:
        """The limit that was negotiated last, by this run or an earlier one."""
        return self._last

    @property
    def agreed(self) -> int | None:
        """The limit that this run has negotiated, None before its first link."""
        return self._agreed

    def agree(self, inline_bytes: int) -> None:
        """Take the limit of a new link."""
        self._last = self._agreed = inline_bytes
