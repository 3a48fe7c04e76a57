"""Sizes of the rows: those of a measurement, or the least that runs every line (`--quick`)."""

from __future__ import annotations

import sys

# The sizes are constants of modules, so the option is read before the arguments are parsed.
QUICK = "--quick" in sys.argv


def size(full: int, least: int) -> int:
    """Return the size of a measurement, or the least one with `--quick`."""
    return least if QUICK else full
