"""The console in a real browser, with real daemons (docs/spec/daemon.md, Console)."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

import claudemesh
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.terminal import safe
from tests.integration.console.pages import (
    NEEDS_CHROMIUM,
    REBOUND,
    foreign_site,
    severe_findings,
    show,
    window,
)
from tests.support.cli import run
from tests.support.processes import REPOSITORY, Daemon, Mesh, free_port, mesh, until

pytestmark = NEEDS_CHROMIUM
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>\u202eevil'


@pytest.fixture(scope="module")
def team() -> Generator[Mesh]:
    """Two members. The daemon of alice answers on the loopback."""
    with mesh("alice", "bob", start=False) as made:
        root = made.daemons["alice"].root
        (root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        # As if a start had taken it, and none that the kernel gives to another connection during a restart.
        write_atomic(root / "http.port.last", f"{free_port()}\n".encode())
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield made


def address(daemon: Daemon) -> str:
    done = run(daemon.home, "web", "--json")
    assert done.code == 0, done.err
    assert done.json.keys() == {"schema", "next", "url", "port", "expires_in_s", "opened", "tunnel"}
    url: str = done.json["url"]
    return url


def received(daemon: Daemon, body: str) -> int:
    return sum(one["body"] == body for one in daemon.inbox())


@pytest.fixture
def page(team: Mesh, browser: Browser) -> Generator[Page]:
    """A page of alice's console that is signed in."""
    with window(browser) as opened:
        opened.goto(address(team.daemons["alice"]))
        expect(opened.get_by_role("status").first).to_have_text("Live")
        yield opened


def test_a_message_arrives_while_the_page_is_open(team: Mesh, page: Page) -> None:
    show(page, "Messages")
    team.daemons["bob"].send("alice", "the build is green")
    row = page.get_by_role("option").filter(has_text="the build is green")
    expect(row).to_be_visible()
    row.click()
    expect(page.get_by_label("Text")).to_have_text("the build is green")


def test_a_member_that_is_alone_is_told_how_to_invite_another(browser: Browser) -> None:
    """The list has the member itself, and the profile can be changed."""
    with mesh("alice", start=False) as made, window(browser) as page:
        [alice] = made.daemons.values()
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        alice.start()
        alice.ready()
        page.goto(address(alice))
        show(page, "Members")
        expect(page.get_by_text("claudemesh invite create")).to_be_visible()
        expect(page.get_by_label("Summary")).to_be_enabled()


def test_the_members_that_lack_the_key_of_a_topic_are_named(team: Mesh, page: Page) -> None:
    """The one holder of the key is away when another member subscribes."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    bob.request("POST", "/v1/topic/create", {"topic": "sealed"})
    bob.request("POST", "/v1/topic/subscribe", {"topic": "sealed"})
    bob.post("sealed", "the first post makes the key", client_message_id="makes-the-key")
    until(lambda: bob.outbox()["makes-the-key"]["status"] == "done", "the key is made")
    bob.stop()
    try:
        assert alice.request("POST", "/v1/topic/subscribe", {"topic": "sealed"})[0] == 200
        page.reload()
        show(page, "Topics")
        row = page.get_by_role("row").filter(has_text="sealed")
        row.get_by_role("button", name="Show who lacks the key of sealed").click()
        expect(row.get_by_role("status")).to_have_text("alice")
    finally:
        team.heal()
    assert alice.request("GET", "/v1/topic/keyless")[0] == 400
    assert alice.request("GET", "/v1/topic/keyless?topic=none")[0] == 404


def test_a_send_shows_each_state_of_its_recipient_with_its_time(team: Mesh, page: Page) -> None:
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    sent = alice.send("bob", "how far?", receipt="acked", client_message_id="how-far")
    assert sent[0] == 202
    [item] = until(lambda: [one for one in bob.inbox() if one["body"] == "how far?"], "bob has it")
    for state in ("shown", "acked"):
        bob.request("POST", "/v1/inbox/ack", {"ids": [item["id"]], "as": state})

    def told() -> bool:
        [row] = alice.request("GET", "/v1/outbox/how-far")[1]["recipients"] or [{}]
        return all(row.get(f"{state}_at") for state in ("delivered", "shown", "acked"))

    until(told, "alice is told")
    page.reload()
    show(page, "Messages")
    page.get_by_role("option").filter(has_text="to bob").first.click()
    for state in ("delivered", "shown", "acked"):
        expect(page.locator(".detail dd div").filter(has_text=state).locator("time")).to_be_visible()


def test_a_file_is_shown_with_the_command_that_fetches_it(team: Mesh, page: Page, tmp_path: Path) -> None:
    bob = team.daemons["bob"]
    (tmp_path / "report.txt").write_text("all is well")
    asked = {"path": str(tmp_path / "report.txt"), "to": "alice", "message": "the report"}
    _, file = bob.request("POST", "/v1/file/share", asked)
    show(page, "Messages")
    page.get_by_role("option").filter(has_text="the report").click()
    expect(page.get_by_text("report.txt")).to_be_visible()
    expect(page.get_by_text(f"claudemesh file get {file['file_id']}")).to_be_visible()


def test_a_text_of_another_member_is_shown_as_text(team: Mesh, page: Page) -> None:
    """HTML stays text, and a character that turns the text around is a mark."""
    show(page, "Messages")
    team.daemons["bob"].send("alice", HOSTILE)
    page.get_by_role("option").filter(has_text="onerror").click()
    expect(page.get_by_label("Text")).to_have_text(HOSTILE.replace("\u202e", "\ufffd"))
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "Messages · claudemesh"


def test_a_huge_text_is_shown_in_part_and_whole_on_demand(team: Mesh, page: Page) -> None:
    """A text of 800 kB in one line neither widens the page nor fills its list."""
    show(page, "Messages")
    assert team.daemons["bob"].send("alice", "huge" + "x" * 800_000 + "end")[0] == 202
    page.get_by_role("option").filter(has_text="hugexx").click()
    text = page.get_by_label("Text", exact=True)
    expect(text).to_contain_text("hugexx")
    assert len(text.inner_text()) < 800_000
    page.get_by_role("button", name="Show all of it").click()
    expect(text).to_have_text(re.compile("^hugex{800000}end$"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_reply_reaches_the_sender(team: Mesh, page: Page) -> None:
    bob = team.daemons["bob"]
    show(page, "Messages")
    bob.send("alice", "deploy now?")
    page.get_by_role("option").filter(has_text="deploy now?").click()
    page.get_by_label("Reply").fill("yes, go on")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Stored on this host")).to_be_visible()
    until(lambda: any(one["body"] == "yes, go on" for one in bob.inbox()), "the reply")


def test_a_text_whose_answer_was_lost_can_go_to_another_member(team: Mesh, page: Page) -> None:
    """Another destination makes another send; the same form again is the same one."""

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    show(page, "Messages")
    page.get_by_role("button", name="Write").click()
    page.get_by_label("To", exact=True).fill("bob")
    page.get_by_label("Message", exact=True).last.fill("who reads this?")
    page.route("**/v1/send", lose, times=2)
    for _ in range(2):
        with page.expect_event("requestfailed"):
            page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("There is no answer.")).to_be_visible()
    page.get_by_label("To", exact=True).fill("alice")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Stored on this host")).to_be_visible()
    daemons = team.daemons.values()
    until(lambda: all(received(one, "who reads this?") == 1 for one in daemons), "each has it once")


def test_the_page_comes_back_by_itself_when_the_daemon_was_restarted(team: Mesh, page: Page) -> None:
    """A free port was taken: the next start finds the same one."""
    alice = team.daemons["alice"]
    alice.stop()
    expect(page.get_by_text("The daemon is away")).to_be_visible()
    alice.start()
    alice.ready()
    expect(page.get_by_role("status").first).to_have_text("Live")


def test_the_page_goes_on_with_a_daemon_of_an_earlier_version(team: Mesh, page: Page, tmp_path: Path) -> None:
    """It leaves out the parts whose routes that daemon does not have, and offers the page of that daemon."""
    alice = team.daemons["alice"]
    alice.stop()
    command = alice.command
    try:
        start_earlier(alice, tmp_path)
        alice.ready()
        expect(page.get_by_text("The daemon was replaced by version 0.0.9")).to_be_visible()
        expect(page.get_by_role("status").first).to_have_text("Live")
        expect(page.locator("figcaption")).to_have_count(0)
        show(page, "Settings")
        expect(page.get_by_role("row").filter(has_text="tcp_enabled")).to_be_visible()
        alice.stop()
    finally:
        alice.prefix, alice.command, alice.environment = [], command, {}
        team.heal()
    expect(page.get_by_text("The daemon was replaced")).to_have_count(0)


def start_earlier(daemon: Daemon, folder: Path) -> None:
    """Start a daemon of an earlier version, without the routes of the activity."""
    package = folder / "claudemesh"
    shutil.copytree(REPOSITORY / "claudemesh", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (
        ("__init__.py", claudemesh.__version__, "0.0.9"),
        ("daemon/api/app.py", "    *activity.ROUTES,\n", ""),
        ("daemon/api/app.py", "            Group(self.activity, activity.ROUTES),\n", ""),
    ):
        text = (package / name).read_text()
        assert old in text
        (package / name).write_text(text.replace(old, new))
    daemon.prefix = ["env", "-C", str(folder)]
    daemon.command = [sys.executable, "-m", "claudemesh"]
    daemon.environment = {"PYTHONPATH": str(folder)}
    daemon.start()


def test_a_code_is_good_for_one_browser(team: Mesh, browser: Browser) -> None:
    with window(browser) as first, window(browser) as second:
        # A code is good for 60 s, and two browsers may take as long to open on a busy machine.
        url = address(team.daemons["alice"])
        first.goto(url)
        expect(first.get_by_role("status").first).to_have_text("Live")
        second.goto(url)
        expect(second.get_by_text("This code was used")).to_be_visible()
        expect(second.get_by_role("heading", name="Not signed in")).to_be_visible()
        # The code is out of the address, and so out of the browser's history.
        assert "#" not in second.url


def test_a_code_whose_request_had_no_answer_is_shown_again(team: Mesh, browser: Browser) -> None:
    """It is out of the address by then, so the page asks by itself."""
    with window(browser) as opened:
        asked: list[str] = []

        def cut_first(route: Route) -> None:
            asked.append(route.request.url)
            if len(asked) == 1:
                route.abort()
            else:
                route.continue_()

        opened.route("**/v1/console/session", cut_first)
        opened.goto(address(team.daemons["alice"]))
        expect(opened.get_by_role("status").first).to_have_text("Live")
        assert len(asked) == 2


def test_a_second_page_of_a_browser_leaves_the_first_signed_in(team: Mesh, page: Page) -> None:
    """Both have one cookie, and each its own key."""
    second = page.context.new_page()
    second.goto(address(team.daemons["alice"]))
    expect(second.get_by_role("status").first).to_have_text("Live")
    page.reload()
    expect(page.get_by_role("status").first).to_have_text("Live")


def test_hidden_characters_are_those_that_the_command_line_spells_out(page: Page) -> None:
    """Tab and line feed stay in a text of several lines."""
    marked = page.evaluate(
        """async () => {
            const { plain } = await import("/console/format.js");
            const points = Array.from({ length: 0x110000 }, (_, point) => point);
            const isMarked = (point) => plain(String.fromCodePoint(point)) === "\\ufffd";
            return points.filter((point) => point !== 0xfffd && isMarked(point));
        }"""
    )
    assert marked == [
        point for point in range(0x110000) if safe(chr(point)) != chr(point) and point not in (9, 10)
    ]


def test_the_views_tell_of_the_time_before_the_page_was_opened(team: Mesh, page: Page) -> None:
    """Counts of the day, and the origin of each setting."""
    alice = team.daemons["alice"]
    alice.send("alice", "a message to count")
    until(lambda: sum(alice.request("GET", "/v1/activity")[1]["received"]) > 0, "it is counted")
    page.reload()
    found = alice.request("GET", "/v1/activity")[1]
    caption = page.locator("figcaption")
    expect(caption).to_contain_text(f"{sum(found['received'])} received, ")
    expect(caption).to_contain_text(f"{sum(found['sent'])} sent, ")
    show(page, "Settings")
    page.get_by_label("Only those that are not the default").check()
    expect(page.get_by_role("row").filter(has_text="tcp_enabled")).to_contain_text("config.toml:2")
    expect(page.get_by_role("row").filter(has_text="log_level")).to_have_count(0)


def test_a_view_shows_a_reload_of_settings_and_a_topic_that_came_since(team: Mesh, page: Page) -> None:
    """Neither has an event. The page has been open for the whole time."""
    alice = team.daemons["alice"]
    config = alice.root / "config.toml"
    before = config.read_text()
    config.write_text(f"{before}[inbox]\nretention_days = 77\n")
    try:
        assert alice.request("POST", "/v1/reload")[1]["error"] is None
        show(page, "Settings")
        row = page.get_by_role("row").filter(has_text="[inbox] retention_days")
        expect(row.filter(has_text="77")).to_be_visible()
        assert alice.request("POST", "/v1/topic/create", {"topic": "since-then"})[0] < 300
        show(page, "Topics")
        expect(page.get_by_role("row").filter(has_text="since-then")).to_be_visible()
    finally:
        config.write_text(before)
        alice.request("POST", "/v1/reload")


def test_a_run_of_a_hook_shows_whether_it_went_well(team: Mesh, page: Page) -> None:
    """The outcome of a run is its exit code, 0 for one that went well."""
    alice, hooks = team.daemons["alice"], team.daemons["alice"].root / "hooks"
    hooks.mkdir(mode=0o700)
    script = hooks / "on-dm"
    script.write_text("#!/bin/sh\nread -r event\ncase $event in *wrong*) exit 3;; esac\n")
    script.chmod(0o700)
    (hooks / "hooks.toml").write_text("[on-dm]\n")
    try:
        assert alice.request("POST", "/v1/reload")[1]["error"] is None
        show(page, "Hooks")
        rows = page.get_by_role("row").filter(has_text="on-dm")
        for text, number, tag, kind in (("right", 1, "ok", "good"), ("wrong", 2, "failed", "bad")):
            assert team.daemons["bob"].send("alice", text)[0] == 202
            expect(rows).to_have_count(number)
            expect(rows.first.locator(f".tag.{kind}")).to_have_text(tag)
    finally:
        shutil.rmtree(hooks)
        alice.request("POST", "/v1/reload")


def test_a_count_of_the_day_that_is_cut_off_says_so(page: Page) -> None:
    """The daemon counts at most 10,000 messages in each quarter of an hour."""
    counts = page.evaluate(
        """async () => {
            const { today } = await import("/console/chart.js");
            const since = new Date().toISOString();
            return today({ since, bucket_s: 900, received: [2, 10000], sent: [3, 4], most_counted: 10000 });
        }"""
    )
    assert counts == ["10002+", "7"]


def test_the_profile_of_this_host_is_changed(team: Mesh, page: Page) -> None:
    show(page, "Members")
    page.get_by_label("Status").fill("reviewing")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("The profile is changed.")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="this host")).to_contain_text("reviewing")


def test_a_waiting_send_is_dropped_after_a_question(team: Mesh, page: Page) -> None:
    """By the keyboard alone. The question says the consequence, and Escape leaves the send as it is."""
    alice = team.daemons["alice"]
    team.broker.stop()
    try:
        until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "the link is down")
        alice.send("bob", "never mind", client_message_id="drop-me")
        show(page, "Sends")
        button = page.get_by_role("button", name="Drop")
        expect(button).to_be_visible()
        button.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("The send is given up for good")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(button).to_be_focused()
        assert alice.outbox()["drop-me"]["status"] == "pending"
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Drop").press("Enter")
        until(lambda: alice.outbox()["drop-me"]["status"] == "aborted", "it is dropped")
        expect(button).to_have_count(0)
    finally:
        team.broker.start()
        team.heal()


def test_a_send_that_was_given_up_is_requeued_after_a_question(team: Mesh, page: Page) -> None:
    """It is sent again under a new id, and arrives. Many later sends do not hide it."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    alice.send("bob", "once more", client_message_id="requeue-me")
    items = [{"to": "bob", "message": f"later {number}"} for number in range(210)]
    assert alice.request("POST", "/v1/send/batch", {"items": items})[0] == 200
    until(lambda: alice.outbox()["requeue-me"]["status"] == "done", "it is sent")
    alice.stop()
    with closing(sqlite3.connect(alice.root / "outbox.db")) as outbox:
        # As if the broker had refused it: the recipient had left, for example.
        refused = "UPDATE outbox SET status = 'dead', last_error = 'not_a_member' WHERE client_message_id = ?"
        outbox.execute(refused, ("requeue-me",))
        outbox.commit()
    team.heal()
    show(page, "Sends")
    row = page.get_by_role("row").filter(has_text="not_a_member")
    row.get_by_role("button", name="Requeue").click()
    expect(page.get_by_text("A recipient that has it already may get it twice.")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Requeue").click()
    until(lambda: [one["body"] for one in bob.inbox()].count("once more") == 2, "it has arrived again")
    expect(row).to_have_count(0)


def test_a_new_token_ends_the_sessions_of_browsers(team: Mesh, page: Page) -> None:
    assert run(team.daemons["alice"].home, "daemon", "rotate-token").code == 0
    expect(page.get_by_role("heading", name="Not signed in")).to_be_visible()


def test_a_page_of_another_port_can_neither_read_nor_act(team: Mesh, page: Page) -> None:
    """It is in the same browser, which has a session and sends its cookie along."""
    port = (team.daemons["alice"].root / "http.port").read_text().strip()
    with foreign_site() as (url, cookies):
        page.goto(url)
        told = page.evaluate(
            """async (port) => {
                const to = `http://127.0.0.1:${port}`;
                const attempt = (path, options) => fetch(to + path, { credentials: "include", ...options })
                    .then((answer) => answer.text(), () => "refused");
                const body = JSON.stringify({ to: "bob", message: "stolen" });
                const headers = { "Content-Type": "application/json" };
                return [
                    await attempt("/v1/inbox"),
                    await attempt("/v1/send", { method: "POST", body, headers }),
                    await attempt("/v1/send", { method: "POST", body, mode: "no-cors" }),
                    await new Promise((resolve) => {
                        const stream = new EventSource(to + "/v1/events?since=0", { withCredentials: true });
                        stream.onopen = () => resolve("a stream");
                        stream.onerror = () => resolve("refused");
                    }),
                    await new Promise((resolve) => {
                        const form = document.createElement("form");
                        Object.assign(form, { method: "post", enctype: "text/plain", target: "answer" });
                        form.action = to + "/v1/send";
                        // The = of the form stands inside of a string, so that the body is JSON.
                        const name = body.slice(0, -1) + ',"meta":{"a":"';
                        form.append(Object.assign(document.createElement("input"), { name, value: '"}}' }));
                        const frame = Object.assign(document.createElement("iframe"), { name: "answer" });
                        document.body.append(frame, form);
                        frame.onload = () => resolve("refused");
                        form.submit();
                    }),
                    await new Promise((resolve) => {
                        const frame = document.createElement("iframe");
                        frame.onload = () => {
                            try {
                                resolve(frame.contentDocument?.title ?? "refused");
                            } catch {
                                resolve("refused");
                            }
                        };
                        frame.src = to + "/";
                        document.body.append(frame);
                    }),
                ];
            }""",
            port,
        )
    assert [text or "refused" for text in told] == ["refused"] * 6
    assert all(one["body"] != "stolen" for one in team.daemons["bob"].inbox())
    # The other port did get the cookie; without the key of the session it is worth nothing.
    assert any("claudemesh-console-" in cookie for cookie in cookies)


def test_a_name_that_was_pointed_at_the_loopback_shows_no_page(team: Mesh, page: Page) -> None:
    """DNS rebinding: the page would be of the same origin as the attacker's."""
    port = page.url.rpartition(":")[2].partition("/")[0]
    answer = page.goto(f"http://{REBOUND}:{port}/")
    assert answer is not None and answer.status == 403
    assert "host_not_allowed" in page.content()


def test_neither_code_nor_key_nor_cookie_is_logged(team: Mesh, page: Page) -> None:
    """The log of a daemon with all of its details."""
    alice = team.daemons["alice"]
    url = address(alice)
    page.goto("about:blank")
    page.goto(url)
    expect(page.get_by_role("status").first).to_have_text("Live")
    key = page.evaluate('sessionStorage.getItem("claudemesh-console-key")')
    cookies = [one.get("value", "") for one in page.context.cookies()]
    log = alice.log.read_text()
    assert len(key) == 64 and cookies
    assert not [secret for secret in (url.partition("#")[2], key, *cookies) if secret in log]


def test_a_page_that_is_not_seen_holds_no_stream_and_catches_up_when_it_is(team: Mesh, page: Page) -> None:
    """A browser has six connections to an address; streams of hidden tabs would use them up."""
    alice = team.daemons["alice"]
    until(lambda: open_streams(alice) == 1, "the page follows")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    show(page, "Messages")
    page.evaluate(hide, True)
    until(lambda: open_streams(alice) == 0, "the stream has ended")
    team.daemons["bob"].send("alice", "sent to a hidden page")
    until(lambda: any(one["body"] == "sent to a hidden page" for one in alice.inbox()), "it has arrived")
    page.evaluate(hide, False)
    expect(page.locator(".row").filter(has_text="sent to a hidden page")).to_be_visible()


def open_streams(daemon: Daemon) -> float:
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("cm_daemon_event_streams "))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_narrow_window(team: Mesh, browser: Browser, scheme: Any) -> None:
    """No view is wider than 360 px, each shows something, and axe-core has no serious finding."""
    with window(browser, viewport={"width": 360, "height": 740}, color_scheme=scheme) as narrow:
        narrow.goto(address(team.daemons["alice"]))
        expect(narrow.get_by_role("status").first).to_have_text("Live")
        for view in ("Overview", "Messages", "Members", "Topics", "Sends", "Hooks", "Settings"):
            show(narrow, view)
            expect(narrow.get_by_role("main", name=view)).not_to_be_empty()
            assert narrow.evaluate("document.documentElement.scrollWidth") <= 360, view
            assert severe_findings(narrow) == [], view


def test_the_keyboard_follows_a_message_in_a_narrow_window_and_comes_back(
    team: Mesh, browser: Browser
) -> None:
    """The list is hidden while a message is shown, and the other way round."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    assert bob.send("alice", "read me by keyboard")[0] in (200, 202)
    until(lambda: any(one["body"] == "read me by keyboard" for one in alice.inbox()), "it has arrived")
    with window(browser, viewport={"width": 360, "height": 740}) as narrow:
        narrow.goto(address(alice))
        expect(narrow.get_by_role("status").first).to_have_text("Live")
        show(narrow, "Messages")
        messages = narrow.get_by_role("listbox")
        messages.press("ArrowDown")
        back = narrow.get_by_role("button", name="Back to the list")
        expect(back).to_be_focused()
        back.press("Enter")
        expect(messages).to_be_focused()


def test_the_console_is_small_and_asks_no_other_origin(team: Mesh, browser: Browser) -> None:
    """All of its files together have at most 120 KB."""
    asked: dict[str, int] = {}
    with window(browser) as opened:
        opened.on(
            "response",
            lambda answer: asked.update({answer.url: int(answer.headers.get("content-length", 0))}),
        )
        opened.goto(address(team.daemons["alice"]))
        expect(opened.get_by_role("status").first).to_have_text("Live")
    port = (team.daemons["alice"].root / "http.port").read_text().strip()
    assert {re.match(r"https?://[^/]*", url)[0] for url in asked} == {f"http://127.0.0.1:{port}"}  # type: ignore[index]
    files = {url: size for url, size in asked.items() if "/v1/" not in url}
    assert 10_000 < sum(files.values()) <= 120_000, json.dumps(files)
