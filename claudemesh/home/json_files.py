"""Reader of the private JSON files of a membership, with errors that name the file and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_private
from claudemesh.runtime.oserrors import cannot


def read_object(path: Path, when_missing: str) -> dict[str, Any]:
    """Return the JSON object in a file that only this user may read.

    `ExitWith` 78 with `when_missing` as the remedy when there is none, 78 when it is damaged, 77 when others
    could read or change it.
    """
    try:
        data = orjson.loads(read_private(path))
    except FileNotFoundError as error:
        raise ExitWith(CONFIGURATION, "not_joined", f"There is no {path}: {when_missing}.") from error
    except UnsafeFile as error:
        raise ExitWith(PERMISSION, "unsafe_file", str(error)) from error
    except OSError as error:
        raise cannot("read", error, path) from error
    except orjson.JSONDecodeError as error:
        raise malformed(path, error) from error
    if not isinstance(data, dict):
        raise malformed(path, TypeError("not an object"))
    return data


def malformed(path: Path, error: Exception) -> ExitWith:
    """Return the exit for a damaged file. It names the field, never the value: these files hold secrets."""
    what = error.message if isinstance(error, ProtocolError) else type(error).__name__
    return ExitWith(CONFIGURATION, "malformed_file", f"{path} is damaged ({what}): restore it from a backup.")
