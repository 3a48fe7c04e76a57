"""A mesh of this machine alone: a daemon with a broker inside."""

from __future__ import annotations

from claudemesh.cli import output
from claudemesh.cli.daemon.background import start_daemon
from claudemesh.cli.options import default_name
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.files import make_private_dir

LOCAL = "local"


def make() -> str:
    """Make the mesh, start its daemon in the background, and return the mesh's name."""
    make_private_dir(daemon_paths(LOCAL).root)
    start_daemon(LOCAL, ["--with-broker", "--name", default_name()])
    output.note(
        f"Made the mesh {LOCAL}, with its broker on this machine. The daemon runs until the next restart of "
        "this host; `claudemesh daemon install-service` starts it at each one."
    )
    return LOCAL
