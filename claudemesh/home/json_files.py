"""Reader of the private JSON files of a membership, with errors that name the file and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_private
from claudemesh.runtime.oserrors import cannot

RESTORE: Final = "restore it from a backup"
_SCHEMA_VERSION: Final = 1


def read_object(path: Path, when_missing: str, when_damaged: str = RESTORE) -> dict[str, Any]:
    """Return the JSON object in a file that only this user may read.

    `ExitWith` 78 with `when_missing` as the remedy when there is none, 78 with `when_damaged` when it is
    damaged, 78 when a newer version has written it, 77 when others could read or change it.
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
        raise malformed(path, error, when_damaged) from error
    if not isinstance(data, dict):
        raise malformed(path, TypeError("not an object"), when_damaged)
    version = data.get("schema_version")
    if isinstance(version, int) and version > _SCHEMA_VERSION:
        raise ExitWith(
            CONFIGURATION,
            "schema_too_new",
            f"{path} was written by a newer claudemesh. Use that version, or a later one.",
        )
    return data


def _damage(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return "it is not JSON"
    return "a field is missing" if isinstance(error, KeyError) else "a value has another form"


def malformed(path: Path, error: Exception, remedy: str = RESTORE) -> ExitWith:
    """Return the exit for a damaged file. It names the field, never the value: these files hold secrets."""
    what = error.message.removesuffix(".") if isinstance(error, ProtocolError) else _damage(error)
    return ExitWith(CONFIGURATION, "malformed_file", f"{path} is damaged ({what}): {remedy}.")
