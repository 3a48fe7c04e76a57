"""The console of a broker in a real browser (docs/spec/broker.md, Console)."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.console.pages import NEEDS_CHROMIUM, foreign_site, severe_findings, show, window
from tests.support.cli import run
from tests.support.processes import Mesh, mesh, until

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def team() -> Generator[Mesh]:
    with mesh("alice", "bob") as made:
        yield made


def address(team: Mesh) -> str:
    done = run(team.broker.home, "broker", "web", "--json", "--data-dir", str(team.broker.data))
    assert done.code == 0, done.err
    url: str = done.json["url"]
    return url


@pytest.fixture
def page(team: Mesh, browser: Browser) -> Generator[Page]:
    """A page of the console that is signed in."""
    with window(browser) as opened:
        opened.goto(address(team))
        expect(opened.get_by_role("status").first).to_have_text("Live")
        yield opened


def test_the_page_shows_the_mesh_its_members_connections_jobs_and_audit(team: Mesh, page: Page) -> None:
    """A member that is away is owed what was sent to it. No text of a message is on any view."""
    team.daemons["bob"].stop()
    try:
        alice = team.daemons["alice"]
        alice.send("bob", "a secret text", client_message_id="to-bob")
        until(lambda: alice.outbox()["to-bob"]["status"] == "done", "the broker has it")
        page.reload()
        show(page, "Members")
        owed = page.get_by_role("row").filter(has_text="bob").filter(has_text="offline")
        expect(owed.get_by_role("cell").nth(2)).to_have_text("1")
        show(page, "Connections")
        expect(page.get_by_role("row").filter(has_text="alice")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text="bob")).to_have_count(0)
        for view, text in (("Meshes", "demo"), ("Jobs", "message-sweep"), ("Audit", "mesh_created")):
            show(page, view)
            expect(page.get_by_role("row").filter(has_text=text)).to_be_visible()
            assert "a secret text" not in page.content()
        show(page, "Overview")
        expect(page.get_by_text("Accepts in each second")).to_be_visible()
    finally:
        team.heal()


def test_a_session_of_the_page_changes_nothing(team: Mesh, page: Page) -> None:
    """The page's own requests that act are refused, with its cookie and its key."""
    refused = page.evaluate(
        """async () => {
            const headers = {
                "X-Claudemesh-Console": sessionStorage.getItem("claudemesh-console-key"),
                "Content-Type": "application/json",
            };
            const ask = async (method, path, body) => {
                const options = { method, headers, body: body && JSON.stringify(body) };
                return (await fetch(path, options)).status;
            };
            return [
                await ask("GET", "/v1/admin/members?mesh=demo"),
                await ask("POST", "/v1/admin/members/revoke", { mesh: "demo", member: "bob" }),
                await ask("POST", "/v1/admin/console/code", {}),
            ];
        }"""
    )
    assert refused == [200, 403, 403]


def test_a_code_is_good_for_one_browser(team: Mesh, browser: Browser) -> None:
    with window(browser) as first, window(browser) as second:
        # A code is good for 60 s, and two browsers may take as long to open on a busy machine.
        url = address(team)
        first.goto(url)
        expect(first.get_by_role("status").first).to_have_text("Live")
        second.goto(url)
        expect(second.get_by_text("This code was used")).to_be_visible()
        assert "#" not in first.url + second.url


def test_a_second_page_of_a_browser_leaves_the_first_signed_in(team: Mesh, page: Page) -> None:
    second = page.context.new_page()
    second.goto(address(team))
    expect(second.get_by_role("status").first).to_have_text("Live")
    page.reload()
    expect(page.get_by_role("status").first).to_have_text("Live")


def test_the_page_comes_back_by_itself_when_the_broker_was_restarted(team: Mesh, page: Page) -> None:
    team.broker.stop()
    try:
        expect(page.get_by_text("The broker is away")).to_be_visible()
    finally:
        team.heal()
    expect(page.get_by_role("status").first).to_have_text("Live")


def test_a_page_of_another_port_can_neither_read_nor_frame(team: Mesh, page: Page) -> None:
    """It is in the same browser, which has a session and sends its cookie along."""
    origin = re.match(r"http://[^/]*", page.url)
    assert origin is not None
    with foreign_site() as (url, _):
        page.goto(url)
        told = page.evaluate(
            """async (to) => {
                const attempt = (path, options) => fetch(to + path, { credentials: "include", ...options })
                    .then((answer) => answer.text(), () => "refused");
                const body = JSON.stringify({ mesh: "demo", member: "bob" });
                return [
                    await attempt("/v1/admin/members?mesh=demo"),
                    await attempt("/v1/admin/members/revoke", { method: "POST", body, mode: "no-cors" }),
                    await new Promise((resolve) => {
                        const frame = document.createElement("iframe");
                        frame.onload = () => {
                            try {
                                resolve(frame.contentDocument?.title ?? "refused");
                            } catch {
                                resolve("refused");
                            }
                        };
                        frame.src = to + "/console";
                        document.body.append(frame);
                    }),
                ];
            }""",
            origin[0],
        )
    assert [text or "refused" for text in told] == ["refused"] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_narrow_window(team: Mesh, browser: Browser, scheme: Any) -> None:
    """No view is wider than 360 px or has a serious finding; all files together have at most 120 KB."""
    sizes: dict[str, int] = {}
    with window(browser, viewport={"width": 360, "height": 740}, color_scheme=scheme) as narrow:
        narrow.on(
            "response",
            lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}),
        )
        narrow.goto(address(team))
        expect(narrow.get_by_role("status").first).to_have_text("Live")
        for view in ("Overview", "Meshes", "Members", "Connections", "Jobs", "Audit"):
            show(narrow, view)
            expect(narrow.get_by_role("main", name=view)).not_to_be_empty()
            assert narrow.evaluate("document.documentElement.scrollWidth") <= 360, view
            assert severe_findings(narrow) == [], view
    assert 10_000 < sum(size for url, size in sizes.items() if "/console" in url) <= 120_000
