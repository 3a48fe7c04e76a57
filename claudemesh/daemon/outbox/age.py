"""How old a row may grow before the broker could have forgotten its id (daemon.md, Outbox)."""

from __future__ import annotations

import math

from claudemesh.protocol.features import Features

_HOURS_A_DAY = 24
_OVERRIDE_MARGIN_HOURS = 24
_LEAST_MARGIN_HOURS = 24


class MaxAgeError(ValueError):
    """The configured override reaches past the broker's dedupe window."""


def max_age_hours(features: Features, *, default: int, cap: int, override: int | None = None) -> int:
    """Return after how many hours a row dies; follows from what the broker advertises.

    Raises `MaxAgeError` when `override` is more than the dedupe window less a day.
    """
    if features.dedupe_retention_days is None:
        return override if override is not None else min(default, cap)
    window = features.dedupe_retention_days * _HOURS_A_DAY
    if override is not None:
        if override > window - _OVERRIDE_MARGIN_HOURS:
            raise MaxAgeError(
                f"[outbox] max_age_hours_override = {override} reaches past the broker's dedupe window: "
                f"set it to {window - _OVERRIDE_MARGIN_HOURS} or less"
            )
        return override
    margin = max(_LEAST_MARGIN_HOURS, math.ceil(features.dedupe_retention_days * 0.1 * _HOURS_A_DAY))
    return window - margin
