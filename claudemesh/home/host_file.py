"""host_fingerprint.json: the host to which the files of a member belong (docs/spec/lifecycle.md, Clones).

Crash story: the file is replaced in one step. A crash leaves the old host or the new one.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from claudemesh.home.host_id import HOST, OVERRIDE, RANDOM, HostId, random_host_id, read_host_id
from claudemesh.home.json_files import malformed, read_object
from claudemesh.protocol.ids import HEX_32
from claudemesh.runtime.files import write_atomic

_WHEN_DAMAGED = "`claudemesh daemon accept-host` writes it again for this host"


def load_host(path: Path) -> HostId | None:
    """Return the kept host id, None when none was kept yet. `ExitWith` 78 when the file is damaged."""
    if not path.exists():
        return None
    data = read_object(path, "start the daemon to make it", _WHEN_DAMAGED)
    fingerprint, source = data.get("fingerprint"), data.get("source")
    is_right = isinstance(fingerprint, str) and HEX_32.fullmatch(fingerprint) is not None
    if not is_right or source not in (HOST, OVERRIDE, RANDOM):
        raise malformed(path, ValueError("no fingerprint"), _WHEN_DAMAGED)
    return HostId(str(fingerprint), str(source))


def keep_host(path: Path, host: HostId) -> None:
    """Replace the kept host id. `OSError`."""
    write_atomic(
        path, orjson.dumps({"schema_version": 1, "fingerprint": host.fingerprint, "source": host.source})
    )


def accept_host(path: Path, override: str | None) -> HostId:
    """Keep this host as the one to which the files belong, in place of the kept one. `OSError`."""
    host = read_host_id(override) or random_host_id()
    keep_host(path, host)
    return host
