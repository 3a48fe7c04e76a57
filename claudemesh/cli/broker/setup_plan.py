"""The files and commands of `broker setup` for the answers to its questions."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from claudemesh.runtime.urls import (
    check_broker_url,
    host_port,
    is_address,
    is_loopback,
    split_broker_url,
    split_host_port,
)

Tls = Literal["files", "proxy", "none"]
Run = Literal["service", "compose", "foreground"]

TLS: Final[tuple[Tls, ...]] = ("files", "proxy", "none")
RUN: Final[tuple[Run, ...]] = ("service", "compose", "foreground")
PORT: Final = 7900
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - other hosts dial this broker


@dataclass(frozen=True, slots=True)
class Plan:
    """The answers. `public_urls` are the addresses at which other hosts dial the broker."""

    data_dir: Path
    listen: str
    public_urls: tuple[str, ...]
    tls: Tls
    tls_cert: Path | None
    tls_key: Path | None
    database_url: str | None
    run: Run

    @property
    def is_unencrypted(self) -> bool:
        """Whether other hosts dial an address without TLS."""
        hosts = (split_broker_url(url).hostname or "" for url in self.public_urls if url.startswith("ws:"))
        return any(not is_loopback(host) for host in hosts)


def public_url(name: str, tls: Tls, port: int) -> str:
    """Return the URL for a host name or address, with or without a port, or a URL. `ValueError`."""
    if "://" not in name:
        scheme = "ws" if tls == "none" else "wss"
        bare = is_address(name) or ":" not in name
        host, given = (name, "") if bare else split_host_port(name)
        # A proxy listens at the port of HTTPS; a broker with TLS of its own at the one that it is given.
        default = "" if tls == "proxy" else str(port)
        shown = given or default
        name = f"{scheme}://{host_port(host, shown) if shown else host}"
    check_broker_url(name)
    return name


def listen_at(name: str, tls: Tls) -> str:
    """Return the address to listen at for a broker that is dialled by this name."""
    host = split_broker_url(public_url(name, tls, PORT)).hostname or ""
    inside = tls == "proxy" or is_loopback(host)
    return f"{_LOOPBACK if inside else _EVERYWHERE}:{PORT}"


def broker_toml(plan: Plan) -> str:
    """Return the settings file."""
    lines = ["# Written by `claudemesh broker setup`; `claudemesh broker config show` lists every key."]
    lines.append(f"listen = {json.dumps(plan.listen)}")
    if plan.public_urls:
        lines.append(f"public_url = {json.dumps(list(plan.public_urls))}")
    if plan.tls == "files":
        lines += [
            f"tls_cert = {json.dumps(str(plan.tls_cert))}",
            f"tls_key = {json.dumps(str(plan.tls_key))}",
        ]
    if plan.tls == "proxy":
        lines.append(f"trusted_proxies = {json.dumps(_LOOPBACK)}")
    if plan.database_url is not None:
        lines.append(f"database_url = {json.dumps(plan.database_url)}")
    return "\n".join(lines) + "\n"


def compose_file(plan: Plan) -> str:
    """Return a compose file for the image `claudemesh`, with the same settings as variables."""
    outside, port = split_host_port(plan.listen)
    variables = {"CLAUDEMESH_BROKER_PUBLIC_URL": ",".join(plan.public_urls)}
    volumes = ["broker:/data"]
    if plan.tls == "files":
        variables |= {
            "CLAUDEMESH_BROKER_TLS_CERT": "/tls/chain.pem",
            "CLAUDEMESH_BROKER_TLS_KEY": "/tls/key.pem",
        }
        volumes += [f"{plan.tls_cert}:/tls/chain.pem:ro", f"{plan.tls_key}:/tls/key.pem:ro"]
    if plan.database_url is not None:
        variables["CLAUDEMESH_BROKER_DATABASE_URL"] = "${CLAUDEMESH_BROKER_DATABASE_URL:?set it in .env}"
    lines = [
        "services:",
        "  broker:",
        "    image: claudemesh",
        "    restart: unless-stopped",
        f"    ports: [{json.dumps(f'{host_port(outside, port)}:{PORT}')}]",
        "    environment:",
        *(f"      {name}: {json.dumps(value)}" for name, value in variables.items()),
        "    volumes:",
        *(f"      - {json.dumps(volume)}" for volume in volumes),
        "volumes:",
        "  broker:",
    ]
    return "\n".join(lines) + "\n"


def start_commands(plan: Plan, slug: str | None) -> list[str]:
    """Return the commands that start the broker, and what follows."""
    folder = shlex.quote(str(plan.data_dir))
    if plan.run == "compose":
        url = plan.public_urls[0] if plan.public_urls else f"ws://{plan.listen}"
        return [
            "docker compose up -d",
            "(umask 077; docker compose exec -T broker cat /data/admin_token >admin_token)",
            f"claudemesh mesh create {slug or 'team'} --broker {url} --admin-token-file admin_token",
        ]
    daemon = [] if slug is None else [f"claudemesh daemon up -d --mesh {slug}"]
    if plan.run == "service":
        return [f"claudemesh broker install-service --now --data-dir {folder}", *daemon]
    return [f"claudemesh broker up -d --data-dir {folder}", *daemon]
