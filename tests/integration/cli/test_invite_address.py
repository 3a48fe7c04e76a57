"""The address in an invite, and its QR code."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import segno

from claudemesh.protocol.invites import code_of_link, parse_link
from claudemesh.runtime.exits import CONFIGURATION, OK
from claudemesh.runtime.own_address import dialled_urls
from tests.support.balancer import balancer
from tests.support.cli import run
from tests.support.processes import REPOSITORY, Mesh, free_port, mesh
from tests.support.waiting import WAIT_S

# Upper and lower module of a character; light ones are drawn.
_MODULES = {"\u2588": (0, 0), "\u2580": (0, 1), "\u2584": (1, 0), " ": (1, 1)}


def held(link: str) -> str:
    """Return the address in an invite."""
    return parse_link(link).broker_url


def test_an_invite_of_a_broker_at_a_wildcard_holds_an_address_that_other_hosts_dial() -> None:
    """The host of the broker goes on dialling the loopback."""
    with mesh(start=False) as made:
        made.broker.stop()
        wildcard = f"0.0.0.0:{made.broker.port}"
        made.broker.arguments[made.broker.arguments.index("--listen") + 1] = wildcard
        made.broker.start()
        made.broker.ready()
        alice = made.add("alice")
        done = run(alice.home, "invite", "create", CLAUDEMESH_BROKER_DATA_DIR=str(made.broker.data))
        assert done.code == OK
        assert [held(done.out.strip())] == list(dialled_urls(f"ws://{wildcard}", ()))
        stranger = run(alice.home, "invite", "create")
        assert held(stranger.out.strip()) == made.broker.url
        assert "Only this machine can join" in stranger.err


def test_an_invite_may_hold_any_address_that_the_broker_knows(pair: Mesh) -> None:
    """Another one is refused; one that does not answer from here is taken, and the command says so."""
    alice = pair.daemons["alice"].home
    local = f"ws://localhost:{pair.broker.port}"
    assert held(run(alice, "invite", "create", "--broker-url", local).out.strip()) == local
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    far = run(alice, "invite", "create", "--broker-url", url)
    assert (far.code, held(far.out.strip()), "cannot check the address" in far.err) == (OK, url, True)
    with balancer([pair.broker.port], port):
        wrong = run(alice, "invite", "create", "--broker-url", url, "--json")
    assert (wrong.code, wrong.json["error"]) == (CONFIGURATION, "wrong_address")


def test_a_qr_code_shows_the_link_where_it_fits(pair: Mesh) -> None:
    """Half blocks of the code's own modules. It fits 80 columns; a narrower terminal is told its width."""
    alice = pair.daemons["alice"].home
    link, *drawn = run(alice, "invite", "create", "--qr").out.splitlines()
    rows: list[list[int]] = []
    for line in drawn:
        upper, lower = zip(*(_MODULES[one] for one in line), strict=True)
        rows += [list(upper), list(lower)]
    code = segno.make(code_of_link(link), error="l", boost_error=False, micro=False)
    expected = [[int(module) for module in row] for row in code.matrix_iter(border=2)]
    assert rows[: len(expected)] == expected
    narrow = on_a_terminal(alice, 60)
    assert (f"needs {len(drawn[0])} columns" in narrow, "\u2588" in narrow) == (True, False)
    assert on_a_terminal(alice, 80).count("\x1b[97m\x1b[40m") == len(drawn)


def on_a_terminal(home: Path, columns: int) -> str:
    """Return what `invite create --qr` shows on a terminal of this width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "claudemesh", "invite", "create", "--qr"],
        cwd=REPOSITORY,
        env={**kept, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65_536):
            shown += part
    except OSError:
        pass  # The last end of the terminal is closed.
    os.close(leader)
    assert process.wait(WAIT_S) == OK
    return shown.decode()
