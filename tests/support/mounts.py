"""Mount namespaces: what one process sees of the file system, and others do not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def hidden(folder: Path) -> list[str]:
    """Return a prefix of a command: it sees an empty directory of its own in the place of `folder`.

    Skip the test where this user may make no mount namespace.
    """
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    prefix = [*namespace, "sh", "-c", f'mount -t tmpfs -o mode=0700 none "{folder}" && exec "$@"', "sh"]
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a mount namespace needs the right to make one (CAP_SYS_ADMIN): {done.stderr.strip()}")
    return prefix
