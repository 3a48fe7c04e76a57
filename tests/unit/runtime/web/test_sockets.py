"""Listening sockets: a stale unix socket is replaced, and nothing else is."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from claudemesh.runtime.exits import CANNOT_CREATE, ExitWith
from claudemesh.runtime.web.sockets import bind_tcp, bind_unix


def refusal(path: Path) -> str:
    with pytest.raises(ExitWith) as caught:
        bind_unix(path)
    assert caught.value.code == CANNOT_CREATE
    return caught.value.error


def test_a_unix_socket_is_private(tmp_path: Path) -> None:
    """Mode 0600 from its first moment."""
    with bind_unix(tmp_path / "sock"):
        assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o600


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """One that a crash left behind refuses connections."""
    bind_unix(tmp_path / "sock").close()
    with bind_unix(tmp_path / "sock"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "sock"))


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    """Another process listens on it."""
    with bind_unix(tmp_path / "sock"):
        assert refusal(tmp_path / "sock") == "already_running"


def test_a_file_is_never_removed(tmp_path: Path) -> None:
    """It may be anything."""
    (tmp_path / "sock").write_text("precious")
    assert refusal(tmp_path / "sock") == "not_a_socket"
    assert (tmp_path / "sock").read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The kernel would cut or refuse it without a reason."""
    assert refusal(tmp_path / ("x" * 200)) == "socket_path_too_long"


def test_an_address_that_cannot_be_taken_is_refused_with_the_setting_to_change() -> None:
    """Exit 73: the port of another process, and an address of another machine."""
    with bind_tcp("127.0.0.1", 0) as listener:
        taken = listener.getsockname()[1]
        for host, port in (("127.0.0.1", taken), ("192.0.2.1", 0)):
            change = re.escape("et another address (listen in broker.toml)")
            with pytest.raises(ExitWith, match=change) as caught:
                bind_tcp(host, port, "listen in broker.toml")
            assert (caught.value.code, caught.value.error) == (CANNOT_CREATE, "cannot_listen")
            assert f"{host}:{port}" in caught.value.message
