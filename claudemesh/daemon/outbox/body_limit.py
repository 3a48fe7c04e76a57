"""Limit of a sealed body's size, as the broker has said it."""

from __future__ import annotations

from claudemesh.protocol.wire import DEFAULT_INLINE_BYTES


class BodyLimit:
    """The broker's `inline_bytes`. Accepting goes by `last`, which holds while the broker is away.

    The drain goes by `agreed`, None until a link was open since the start: no row dies of an old limit.
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
