"""`daemon up --with-broker`: the broker has the settings of the environment and of broker.toml."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.runtime.exits import CANNOT_CREATE, OK
from tests.support.cli import Ran, run
from tests.support.processes import free_port


class Home:
    """A host with one daemon that runs a broker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def up(self, **environment: str) -> Ran:
        return run(self.path, "daemon", "up", "-d", "--with-broker", "--name", "solo", **environment)

    def down(self) -> None:
        assert run(self.path, "daemon", "down").code == OK

    @property
    def dialled(self) -> str:
        """The address in membership.json."""
        url: str = json.loads((self.path / "daemon/home/membership.json").read_text())["broker_url"]
        return url

    def is_connected(self) -> bool:
        return run(self.path, "wait", "--for", "online", "--timeout", "120s").code == OK


@pytest.fixture
def host(short_path: Path) -> Generator[Home]:
    """A host whose daemon is stopped at the end."""
    made = Home(short_path / "home")
    made.path.mkdir(mode=0o700)
    yield made
    run(made.path, "daemon", "down")


def test_a_free_port_is_taken_on_demand_and_kept(host: Home) -> None:
    """Port 0 is a free one at the first start; later starts listen at the same, with and without it."""
    assert host.up(CLAUDEMESH_BROKER_LISTEN="127.0.0.1:0").code == OK
    first = host.dialled
    assert host.is_connected()
    for environment in ({}, {"CLAUDEMESH_BROKER_LISTEN": "127.0.0.1:0"}):
        host.down()
        assert host.up(**environment).code == OK
        assert host.is_connected()
        assert host.dialled == first


def test_the_file_of_the_broker_applies(host: Home) -> None:
    """Its address, and every other setting."""
    port = free_port()
    (host.path / "broker").mkdir(mode=0o700)
    (host.path / "broker/broker.toml").write_text(f'listen = "127.0.0.1:{port}"\ninline_bytes = 5000\n')
    assert host.up().code == OK
    assert host.dialled == f"ws://127.0.0.1:{port}"
    assert host.is_connected()
    features = json.loads((host.path / "daemon/home/broker_features.json").read_text())
    assert "5000" in json.dumps(features)


def test_the_daemon_follows_its_own_broker_to_another_address(host: Home) -> None:
    """A port that is taken is refused with the remedy; another one given to the broker is dialled too."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        taken = host.up(CLAUDEMESH_BROKER_LISTEN=f"127.0.0.1:{port}")
        assert taken.code == CANNOT_CREATE
        assert f"127.0.0.1:{port}" in taken.err
        assert "CLAUDEMESH_BROKER_LISTEN" in taken.err and "port 0 takes a free port" in taken.err
    assert host.up(CLAUDEMESH_BROKER_LISTEN=f"127.0.0.1:{port}").code == OK
    host.down()
    other = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert host.up(CLAUDEMESH_BROKER_LISTEN=f"127.0.0.1:{other}").code == OK
        assert host.is_connected()
    assert host.dialled == f"ws://127.0.0.1:{other}"
