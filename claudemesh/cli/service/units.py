"""Texts of systemd units: a template for the daemons of a home, and a unit for a broker.

A unit of the system manager is confined as far as the programs and their hooks allow; its rating by
`systemd-analyze security` is at most 3.0. A unit of a user's manager has the part of it that needs no rights.
Hooks need namespaces and mounts of their own (docs/hooks.md), and their interpreters may need memory that is
writable and executable, so these stay allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.exits import CONFIGURATION, ExitWith

DAEMON_TEMPLATE = "claudemesh@.service"
BROKER_UNIT = "claudemesh-broker.service"
# Exit codes after which a start with the same files ends in the same way: no permission, configuration.
_FINAL_EXITS = "77 78"


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a service: how the program is started, the folder that it writes to, and its user.

    `user` is None for a unit of a user's own manager, whose confinement of files needs `user_namespaces`.
    `low_port` allows ports below 1024.
    """

    program: Sequence[str]
    folder: Path
    user: str | None
    low_port: bool = False
    user_namespaces: bool = True


def daemon_unit(place: Placement, memory_bytes: int | None = None) -> str:
    """Return the template `claudemesh@.service`; the instance is the slug of a mesh."""
    command = f"{_command(place.program)} daemon up --mesh %i"
    return _unit(
        place,
        "claudemesh daemon of mesh %i",
        True,
        [
            f"ExecStart={command}",
            "ExecReload=kill -HUP $MAINPID",
            f"Environment={_quoted(f'CLAUDEMESH_HOME={place.folder}')}",
            *_limits(memory="2G" if memory_bytes is None else str(memory_bytes), tasks=512),
        ],
    )


def broker_unit(place: Placement) -> str:
    """Return `claudemesh-broker.service`. Its settings are in broker.toml and in the environment file."""
    command = _command([*place.program, "broker", "up", "--data-dir", str(place.folder)])
    return _unit(
        place,
        "claudemesh broker",
        False,
        [
            f"ExecStart={command}",
            # CLAUDEMESH_BROKER_DATABASE_URL and the like: a secret belongs there, not in this file.
            "EnvironmentFile=-%E/claudemesh/broker.env",
            *_limits(memory="4G", tasks=256),
        ],
    )


def _unit(place: Placement, description: str, has_hooks: bool, own: Sequence[str]) -> str:
    cache = "claudemesh" if place.user is None else f"claudemesh-{place.user}"
    target = "default.target" if place.user is None else "multi-user.target"
    network = ["Wants=network-online.target", "After=network-online.target"] if place.user else []
    lines = [
        "# Written by claudemesh. Change it by `systemctl edit`, which keeps changes in a file of its own.",
        "[Unit]",
        f"Description={description}",
        *network,
        "StartLimitIntervalSec=5min",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=notify",
        *own,
        *([f"User={place.user}"] if place.user else []),
        f"Environment=CLAUDEMESH_CACHE=%C/{cache}",
        f"CacheDirectory={cache}",
        "CacheDirectoryMode=0700",
        f"ReadWritePaths={_quoted(str(place.folder))}",
        "Restart=on-failure",
        "RestartSec=5s",
        f"RestartPreventExitStatus={_FINAL_EXITS}",
        "WatchdogSec=60s",
        "# A migration of a large database is a part of the start.",
        "TimeoutStartSec=15min",
        "TimeoutStopSec=30s",
        "KillMode=mixed",
        "",
        *_confinement(place, has_hooks),
        "",
        "[Install]",
        f"WantedBy={target}",
    ]
    return "\n".join(lines) + "\n"


def _limits(*, memory: str, tasks: int) -> list[str]:
    return [f"MemoryMax={memory}", f"TasksMax={tasks}", "LimitNOFILE=65536", "LimitCORE=0"]


def _confinement(place: Placement, has_hooks: bool) -> list[str]:
    # A service whose folder is below /tmp needs the /tmp of the host.
    is_temporary = any(place.folder.is_relative_to(folder) for folder in ("/tmp", "/var/tmp"))  # noqa: S108
    lines = [
        "UMask=0077",
        "NoNewPrivileges=yes",
        f"PrivateTmp={'no' if is_temporary else 'yes'}",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallErrorNumber=EPERM",
    ]
    if has_hooks:
        lines += ["SystemCallFilter=@system-service @mount", "RestrictNamespaces=user pid net mnt"]
    else:
        lines += ["SystemCallFilter=@system-service", "RestrictNamespaces=yes"]
    if place.user is None:
        # Without a user namespace the manager of a user ignores what confines files.
        return [*lines, *(["PrivateUsers=yes"] if place.user_namespaces else [])]
    capability = "CAP_NET_BIND_SERVICE" if place.low_port else ""
    lines += [
        f"CapabilityBoundingSet={capability}",
        f"AmbientCapabilities={capability}",
        "PrivateDevices=yes",
        "PrivateMounts=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectKernelModules=yes",
        "KeyringMode=private",
        "RemoveIPC=yes",
    ]
    if not has_hooks or place.user == "root":
        # The kernel then refuses a /proc of its own to a hook. Without them files of root would allow more.
        lines += ["ProtectKernelTunables=yes", "ProtectKernelLogs=yes", "ProtectHostname=yes"]
    if has_hooks and place.user == "root":
        lines += ["PrivateUsers=yes"]
    return lines


def _command(program: Sequence[str]) -> str:
    # systemd replaces variables in every word but the first.
    first, *others = (_quoted(word) for word in program)
    return " ".join([first, *(word.replace("$", "$$") for word in others)])


def _quoted(text: str) -> str:
    """Return one word of a unit file. `ExitWith` 78 for a control character, which no line can hold."""
    if any(ord(character) < ord(" ") for character in text):
        text = text.encode("unicode_escape").decode()
        raise ExitWith(CONFIGURATION, "unusable_path", f"No unit can name {text}. Use another folder.")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if " " in text or "'" in text or '\\"' in text else text
