"""Common parts of all tests: `async def` tests run on a uvloop event loop, each with a time limit."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from claudemesh.home.environment import VARIABLES

# No test asserts seconds: how long one example takes says how busy the machine is.
settings.register_profile("claudemesh", deadline=None)
settings.load_profile("claudemesh")

ASYNC_TEST_LIMIT_S = 300

# The defaults of the product depend on its place: the tests see the same ones on a CI server as elsewhere.
for _name in VARIABLES:
    os.environ.pop(_name, None)

# The clients of the tests dial servers on this host, which no proxy reaches.
for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

# A shell starts its background jobs with SIGINT ignored, and every process of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test an id of its own: of several with one id, the workers of xdist run only one.

    A library that makes a test for each route puts the route in the name and leaves it out of the id.
    """
    for item in items:
        _, bracket, route = item.name.partition("[")
        if bracket and item.id.params is None:
            item._id = item.id.with_params(route.removesuffix("]"))
    shared = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"Several tests have one id: {', '.join(shared[:5])}. Give each its own.")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test function to its end; a test that hangs fails instead of blocking the run."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in wanted}

    async def bounded() -> None:
        await asyncio.wait_for(pyfuncitem.obj(**arguments), ASYNC_TEST_LIMIT_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())
    return True


@pytest.fixture(scope="module", autouse=True)
def no_process_left() -> Generator[None]:
    """The tests of a module end the processes of claudemesh that they have started."""
    yield
    processes = sys.modules.get("tests.support.processes")
    left = processes.end_started() if processes is not None else []
    assert not left, f"processes that still ran: {left}"


@pytest.fixture
def short_path() -> Generator[Path]:
    """A folder like `tmp_path` whose path leaves room for a socket's: a socket path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cm-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
