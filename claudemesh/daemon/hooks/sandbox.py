"""The command line that puts a hook into a bubblewrap sandbox."""

from __future__ import annotations

import shutil
from pathlib import Path

# What programs need to start: never the home directory, where the keys are.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
# Empty, in memory, and its own.
_SCRATCH = "/tmp"  # noqa: S108
_FOR_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl")


def find_bubblewrap() -> str | None:
    """Return the path of bwrap, or None when it is not installed."""
    return shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")


def sandboxed(bubblewrap: str, hook: Path, sock: Path, *, network: bool) -> list[str]:
    """Return the command that runs a hook seeing the system read-only, itself, and the daemon's socket.

    The environment is the one that the command is started with. It is not repeated here, because every user
    of the machine can read a command line, and it holds the capability token.
    """
    command = [bubblewrap, "--die-with-parent", "--unshare-all", "--cap-drop", "ALL"]
    if network:
        command.append("--share-net")
    for path in (*_SYSTEM, *(_FOR_NETWORK if network else ())):
        command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", _SCRATCH]
    command += ["--ro-bind", str(hook), str(hook), "--ro-bind", str(sock), str(sock)]
    return [*command, "--chdir", _SCRATCH, "--", str(hook)]
