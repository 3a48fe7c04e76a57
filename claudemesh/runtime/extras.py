"""Libraries that a package of pip has only with an extra. The archive and the container have all of them."""

from __future__ import annotations

from importlib.util import find_spec

from claudemesh.runtime.exits import CONFIGURATION, ExitWith


def require_extra(extra: str, library: str, setting: str) -> None:
    """Raise `ExitWith` 78 (`missing_extra`) when the library that a setting needs is not installed."""
    if find_spec(library) is None:
        raise ExitWith(
            CONFIGURATION,
            "missing_extra",
            f"{setting} needs the Python library {library}, which is not installed. "
            "claudemesh.pyz and the container have it.",
            next=f"pip install 'claudemesh[{extra}]'",
        )
