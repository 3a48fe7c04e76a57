"""The README's `Two hosts`, in two network namespaces: each command as it stands there."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.artefact.test_readme import blocks
from tests.support.hosts import Host
from tests.support.namespaces import missing, two_namespaces
from tests.support.processes import REPOSITORY, until

_REASON = missing()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


@pytest.fixture
def apart(pyz: Path) -> Generator[tuple[Host, Host, str]]:
    """A server, a laptop and the server's address; what they start is ended."""
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    with two_namespaces() as (first, second):
        made = []
        for name, namespace in (("server", first), ("laptop", second)):
            (root / name).mkdir(mode=0o700)
            made.append(Host(root / name, 0, namespace.prefix))
            # The README starts brokers at addresses of its own.
            del made[-1].environment["CLAUDEMESH_BROKER_LISTEN"]
        try:
            yield made[0], made[1], first.address
        finally:
            for host in made:
                host.run("claudemesh down || true; claudemesh broker down")
            shutil.rmtree(root, ignore_errors=True)


def meet(server: Host, laptop: Host, link: str, join: str) -> None:
    """Let the laptop join and send as the README has it, and the server answer."""
    laptop.run(join.replace("claudemesh://join/…", link))
    until(lambda: "hello from the laptop" in server.run("claudemesh inbox"), "the message has arrived")
    server.run("claudemesh send laptop 'hello from the server'")
    until(lambda: "hello from the server" in laptop.run("claudemesh inbox"), "the answer has arrived")


def test_two_hosts_meet_on_a_trusted_network(apart: tuple[Host, Host, str]) -> None:
    """The invite holds the address that the other host dials, and `ws://` needs `--insecure`."""
    server, laptop, address = apart
    first, second, _ = blocks("Two hosts", "sh")
    link = re.search(r"claudemesh://join/\S+", server.run(first))
    assert link is not None
    assert f"ws://{address}:7900" in server.run("claudemesh broker status")
    with pytest.raises(AssertionError, match=rf"ws://{address}:7900 is not encrypted"):
        laptop.run(f"claudemesh join '{link[0]}' --name laptop")
    meet(server, laptop, link[0], second)


def test_two_hosts_meet_with_a_certificate_of_their_own_authority(apart: tuple[Host, Host, str]) -> None:
    """Both trust it by `--ca-file`, and no host needs `--insecure`."""
    server, laptop, address = apart
    page = (REPOSITORY / "docs/operating.md").read_text()
    recipe = re.search(r"^### An authority of your own$.*?^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert recipe is not None
    server.run("cd\n" + recipe[1].replace("DNS:mesh.example.org", f"IP:{address}"))
    shutil.copy(server.home / "ca.pem", laptop.home / "ca.pem")
    _, second, third = blocks("Two hosts", "sh")
    third = third.replace("mesh.example.org", address)
    third = "cd\n" + third.replace("--name server", "--name server --ca-file ca.pem")
    link = re.search(r"claudemesh://join/\S+", server.run(third))
    assert link is not None
    join = second.replace("--insecure", "")
    with pytest.raises(AssertionError, match="signed by no authority that this host trusts"):
        laptop.run(join.replace("claudemesh://join/…", link[0]))
    meet(server, laptop, link[0], "cd\n" + join.replace("--name laptop", "--name laptop --ca-file ca.pem"))
