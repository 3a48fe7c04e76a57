"""Times as a terminal shows them: in the zone of this host, or relative to now.

Pipes and JSON keep UTC in ISO 8601, as the daemon and the broker write it.
"""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h"))
_DAY_S = 86_400


def relative(iso: str, now: datetime | None = None) -> str:
    """Return a time relative to now, such as `5 min ago` or `in 3 h`."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(iso)).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as `12 s`, `5 min`, `3 h` or `12 d`."""
    for below, unit, name in _STEPS:
        if seconds < below:
            return f"{int(seconds / unit)} {name}"
    return f"{int(seconds / _DAY_S)} d"


def local(iso: str) -> str:
    """Return a time in the zone of this host, such as `2026-01-31 13:00:00 CET`."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def precise(iso: str) -> str:
    """Return a time in the zone of this host with its milliseconds, for logs."""
    moment = datetime.fromisoformat(iso).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} {moment:%Z}"


def clock(iso: str, now: datetime | None = None) -> str:
    """Return the time of day in the zone of this host, with the date unless it is today's."""
    moment = datetime.fromisoformat(iso).astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    return moment.strftime("%H:%M:%S %Z" if moment.date() == today else "%Y-%m-%d %H:%M %Z")
