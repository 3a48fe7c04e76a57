"""Pages in a real browser: windows that fail on errors, views, and a foreign site."""

from __future__ import annotations

import gzip
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.waiting import WAIT_S

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# A foreign name that the browser resolves to the loopback.
REBOUND = "evil.example"
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page of a fresh profile. An error in it fails the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_S * 1000)
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
        assert errors == []
    finally:
        context.close()


def show(page: Page, view: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{view}")).click()


@contextmanager
def foreign_site() -> Iterator[tuple[str, list[str]]]:
    """A web site on another port of the loopback, and the cookies that it was sent."""
    cookies: list[str] = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("Cookie", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title><body>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", cookies
    finally:
        server.shutdown()
        server.server_close()


# axe-core 4.14.1 (MPL-2.0): rules of accessibility. It runs in tests only.
AXE = gzip.decompress((Path(__file__).parent / "axe" / "axe.min.js.gz").read_bytes()).decode()
_SEVERE = ("serious", "critical")


def severe_findings(page: Page) -> list[tuple[str, str]]:
    """Return the serious findings of axe-core on a page: the rule, and the element."""
    page.evaluate(f"() => {{ {AXE}; }}")
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        (rule["id"], node["html"]) for rule in found if rule["impact"] in _SEVERE for node in rule["nodes"]
    ]
