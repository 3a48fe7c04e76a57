"""Identifiers and their syntax (docs/spec/protocol.md, Identifiers). Nothing is trimmed or folded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from uuid import UUID

from claudemesh.protocol.errors import InvalidField

# Patterns are used with `fullmatch`; `$` would accept a trailing newline.
CLIENT_MESSAGE_ID: Final = re.compile(r"[!-~]{1,255}")
ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
UUID_TEXT: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
HEX_32: Final = re.compile(r"[0-9a-f]{64}")
KEY_ID: Final = re.compile(r"k_[0-7][0-9A-HJKMNP-TV-Z]{25}")
SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two characters encode ten bits, so 13 look-ups encode a ULID.
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS: Final = tuple(range(120, -1, -10))
_TO_DIGITS: Final = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_RANDOM_BITS: Final = 80
_RANDOM_BYTES: Final = 10
_TIME_CHARACTERS: Final = 10
_HALF: Final = (1 << 40) - 1
_DRAWN_IDS: Final = 64
_RANDOM_LIMIT: Final = 1 << _RANDOM_BITS
_TIME_LIMIT_MS: Final = 1 << 48


def has_control(text: str) -> bool:
    """Tell whether a text holds a control character: C0, DEL or C1."""
    return _CONTROL.search(text) is not None


class UlidFactory:
    """Mints ascending ULIDs, also when the clock stands still or steps back. Not thread-safe.

    Random bytes are drawn for many ids at once: each draw is a system call that lets go of the interpreter.
    """

    __slots__ = ("_at", "_drawn", "_entropy", "_last", "_now_ms", "_time", "_time_text")

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self._last = -1
        self._drawn = b""
        self._at = 0
        # The time of the last id, and its ten characters: many ids have the same.
        self._time = -1
        self._time_text = ""

    def new(self) -> str:
        """Return a ULID greater than all before. `OverflowError` after the year 10889."""
        now_ms = max(self._now_ms(), 0)
        last = self._last
        is_later = now_ms > last >> _RANDOM_BITS
        # After 80 bits the increment carries into the time, and ids still ascend.
        value = now_ms << _RANDOM_BITS | self._random() if is_later else last + 1
        if value >= _TIME_LIMIT_MS << _RANDOM_BITS:
            raise OverflowError("The time of a ULID has 48 bits.")
        self._last = value
        time = value >> _RANDOM_BITS
        if time != self._time:
            self._time, self._time_text = time, first_ulid(time)[:_TIME_CHARACTERS]
        return self._time_text + _random_text(value)

    def _random(self) -> int:
        at, self._at = self._at, self._at + _RANDOM_BYTES
        if at == len(self._drawn):
            self._drawn, at, self._at = self._entropy(_RANDOM_BYTES * _DRAWN_IDS), 0, _RANDOM_BYTES
        return int.from_bytes(self._drawn[at : self._at], "big")


def _ulid_text(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def _random_text(value: int) -> str:
    """Return the characters of a ULID behind those of its time, in half of the time of `_ulid_text`."""
    # Integers of 40 bits are shifted faster than those of 128.
    high, low, pairs = value >> 40 & _HALF, value & _HALF, _PAIRS
    return (
        f"{pairs[high >> 30]}{pairs[high >> 20 & 1023]}{pairs[high >> 10 & 1023]}{pairs[high & 1023]}"
        f"{pairs[low >> 30]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}{pairs[low & 1023]}"
    )


def _ulid_int(text: str) -> int:
    if not is_ulid(text):
        raise InvalidField(
            "invalid_ulid", "ulid", "The text is no ULID: 26 upper-case characters of Crockford's base32."
        )
    return int(text.translate(_TO_DIGITS), 32)


def is_ulid(value: object) -> bool:
    """Tell whether a value is a ULID in its one canonical spelling."""
    return isinstance(value, str) and ULID.fullmatch(value) is not None


def ulid_to_bytes(text: str) -> bytes:
    """Return the 16 bytes of a ULID. `InvalidField` invalid_ulid."""
    return _ulid_int(text).to_bytes(16, "big")


def ulid_from_bytes(raw: bytes) -> str:
    """Return the ULID of 16 bytes. `InvalidField` invalid_ulid."""
    if len(raw) != 16:
        raise InvalidField("invalid_ulid", "ulid", "The value is no ULID: 16 bytes.")
    return _ulid_text(int.from_bytes(raw, "big"))


def uuid_from_ulid(text: str) -> str:
    """Return the 128 bits of a ULID as a UUID, which sorts by time too. `InvalidField` invalid_ulid."""
    return str(UUID(int=_ulid_int(text)))


def first_ulid(time_ms: int) -> str:
    """Return the smallest ULID of a Unix time in milliseconds."""
    return _ulid_text(time_ms << 80)


def ulid_time_ms(text: str) -> int:
    """Return the time of a ULID in Unix milliseconds. `InvalidField` invalid_ulid."""
    return _ulid_int(text) >> _RANDOM_BITS


def check_client_message_id(value: object) -> str:
    """Return a valid client_message_id unchanged. `InvalidField` invalid_client_message_id."""
    name = "client_message_id"
    return _checked(value, CLIENT_MESSAGE_ID, name, name, "1 to 255 characters, each from ! to ~")


def check_ulid(value: object, field: str) -> str:
    """Return a valid ULID unchanged. `InvalidField` invalid_ulid."""
    return _checked(value, ULID, "ulid", field, "a ULID: 26 upper-case characters of Crockford's base32")


def check_uuid(value: object, field: str) -> str:
    """Return a valid UUID unchanged. `InvalidField` invalid_uuid."""
    return _checked(value, UUID_TEXT, "uuid", field, "a UUID in lower case with hyphens")


def check_key(value: object, field: str) -> str:
    """Return a valid public key unchanged. `InvalidField` invalid_key."""
    return _checked(value, HEX_32, "key", field, "64 lower-case hexadecimal characters")


def check_slug(value: object, field: str = "slug") -> str:
    """Return a valid mesh slug unchanged. `InvalidField` invalid_slug."""
    return _checked(value, SLUG, "slug", field, f"1 to 63 of a-z 0-9 . _ -, {_FIRST}")


def check_topic(value: object, field: str = "topic") -> str:
    """Return a valid name of a topic or queue unchanged. `InvalidField` invalid_topic."""
    return _checked(value, SLUG, "topic", field, f"1 to 63 of a-z 0-9 . _ -, {_FIRST}")


def check_session(value: object, field: str = "session") -> str:
    """Return a valid name of a session unchanged. `InvalidField` invalid_session."""
    if isinstance(value, str) and SLUG.fullmatch(value) is not None:
        return value
    text = f"The name of a session in {field} must be 1 to 63 of a-z 0-9 . _ -, {_FIRST}."
    raise InvalidField("invalid_session", field, text)


def check_member_name(value: object, field: str = "name") -> str:
    """Return a valid member name unchanged. `InvalidField` invalid_name."""
    return _checked(value, MEMBER_NAME, "name", field, f"1 to 63 of A-Z a-z 0-9 . _ -, {_FIRST}")


_FIRST: Final = "beginning with a letter or digit"


def _checked(value: object, pattern: re.Pattern[str], kind: str, field: str, what: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value) is not None:
        return value
    raise InvalidField(f"invalid_{kind}", field, f"{field} must be {what}.")
