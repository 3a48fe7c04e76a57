"""The browser of the tests of consoles."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.integration.console.pages import CHROMIUM, REBOUND
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    expect.set_options(timeout=WAIT_S * 1000)
    with sync_playwright() as driver:
        # Without its own sandbox, which a container refuses. It opens pages of this test alone. A name of DNS
        # is pointed at the loopback.
        arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()
