"""Opening of a page in the browser of this machine, and the tunnel by which another machine reaches it."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Mapping


def opened(url: str) -> bool:
    """Open a page in the browser. Return whether there is one here that shows windows."""
    if not has_display(os.environ):
        return False
    # Imported here: only these commands open a browser.
    import webbrowser

    return webbrowser.open(url)


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether a browser has a window here. Over ssh it would open on the wrong machine."""
    if "SSH_CONNECTION" in environment:
        return False
    return sys.platform == "darwin" or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def tunnel_line(port: int) -> str:
    """Return the ssh command that makes a port of this machine's loopback one of another machine's."""
    # user, port, address and port of the other end
    ends = os.environ.get("SSH_CONNECTION", "").split()
    host = ends[2] if len(ends) == 4 else platform.node()
    return f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"
