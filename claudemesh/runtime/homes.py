"""The home directory of the user, which a number without a name in a container may lack."""

from __future__ import annotations

from pathlib import Path

from claudemesh.runtime.exits import CONFIGURATION, ExitWith


def user_home() -> Path:
    """Return the home directory of the user. `ExitWith` 78 without one."""
    return expanded(Path("~"))


def expanded(path: Path) -> Path:
    """Return a path with the home directory in place of `~`. `ExitWith` 78 when that user has none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        whose = "This user" if path.parts[0] == "~" else path.parts[0]
        raise ExitWith(
            CONFIGURATION,
            "no_home",
            f"{whose} has no home directory. Set CLAUDEMESH_HOME to a folder of your own, or HOME.",
        ) from error
