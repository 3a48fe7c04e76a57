"""A server of a test leaves nothing behind: what it leaves is an error of some other test."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.background import background
from tests.support.balancer import balancer
from tests.support.processes import free_port


def leave(ports: list[int], clients: int) -> None:
    """Connect to a balancer that ends while it takes the connections."""
    port = free_port()
    with balancer(ports, port):
        links = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    for link in links:
        link.close()


@pytest.mark.parametrize("answers", [True, False], ids=["to a server", "to no server"])
def test_a_server_that_ends_leaves_no_connection_open(answers: bool) -> None:
    """Not one that is just accepted, that is being passed on, or whose handler still runs."""
    with socket.create_server(("127.0.0.1", 0)) as behind, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for number in range(60):
            leave([behind.getsockname()[1]] if answers else [free_port()], number % 6)
            behind.settimeout(0)
            with suppress(OSError):
                while True:
                    behind.accept()[0].close()
        gc.collect()
    assert [str(each.message) for each in found] == []


def test_a_server_that_cannot_start_says_why() -> None:
    """The test gets the error, and does not wait."""

    @asynccontextmanager
    async def refused() -> AsyncGenerator[None]:
        raise OSError("the port is taken")
        yield

    with pytest.raises(OSError, match="taken"), background(refused()):
        pass
