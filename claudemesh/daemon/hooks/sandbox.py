"""The command line that puts a hook into a bubblewrap sandbox."""

from __future__ import annotations

import shutil
from pathlib import Path

# Paths that programs need to start. The home directory, where the keys are, is not among them.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
# Empty directories in memory, private to the hook.
_SCRATCH = "/tmp"  # noqa: S108
_FOR_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl")


def find_bubblewrap() -> str | None:
    """Return the path of bwrap, or None when it is not installed."""
    return shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")


def sandboxed(bubblewrap: str, hook: Path, sock: Path, *, network: bool) -> list[str]:
    """Return the command that runs a hook with a read-only system, its own file, and the daemon's socket.

    The hook inherits the environment of the command. It is not part of the command line, which every user
    of the machine can read, because it holds the capability token.
    """
    command = [bubblewrap, "--die-with-parent", "--unshare-all", "--cap-drop", "ALL"]
    if network:
        command.append("--share-net")
    for path in (*_SYSTEM, *(_FOR_NETWORK if network else ())):
        command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", _SCRATCH]
    command += ["--ro-bind", str(hook), str(hook), "--ro-bind", str(sock), str(sock)]
    return [*command, "--chdir", _SCRATCH, "--", str(hook)]
