"""The page of a daemon in a real browser: `PYTHONPATH=.:build python build/benchmarks/console.py [MESSAGES]`.

Prints JSON: milliseconds to the first paint of a warm page, frames per second while a list of MESSAGES rows
scrolls, and frames and delays of keys while 60 messages a second arrive.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from tests.integration.console.pages import CHROMIUM, show
from tests.support.processes import Daemon, mesh, until

_BATCH = 250
_RELOADS = 6
_PER_S = 60
_LIVE_S = 15
_TEXT = "the quick brown fox jumps over the lazy dog " * 5
_PAINT = (
    "performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint').startTime"
)
_END = """() => {
    const box = document.querySelector(".long");
    box.scrollTop = box.scrollHeight;
    return document.querySelector(".rows").offsetHeight / 58;
}"""
_SCROLL = """() => new Promise((done) => {
    const box = document.querySelector(".long"), begun = performance.now();
    let frames = 0;
    box.scrollTop = 0;
    const step = () => {
        frames += 1;
        box.scrollTop += 240;
        const passed = performance.now() - begun;
        if (passed > 5000) done((1000 * frames) / passed);
        else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""
_WATCH = """() => {
    window.keys = [];
    window.frames_ms = [];
    const keep = (list) => list.getEntries().forEach((one) => window.keys.push(one.duration));
    new PerformanceObserver(keep).observe({ type: "event", durationThreshold: 16 });
    let last = performance.now();
    const step = (at) => {
        window.frames_ms.push(at - last);
        last = at;
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
}"""


def fill(sender: Daemon, receiver: Daemon, messages: int) -> None:
    """Send messages in batches, and wait until the receiver has them."""
    for first in range(0, messages, _BATCH):
        numbers = range(first, first + _BATCH)
        texts = [f"message {number}: the build is green; {'word ' * 30}" for number in numbers]
        items = [{"to": receiver.name, "message": one} for one in texts]
        sender.request("POST", "/v1/send/batch", {"items": items})
    newest = f"message {messages - 1}:"

    def has_newest() -> bool:
        _, page = receiver.request("GET", "/v1/inbox?order=desc&limit=1")
        return any(item["body"].startswith(newest) for item in page["items"])

    until(has_newest, "all have arrived")


def flood(sender: Daemon, to: str) -> None:
    """Send 60 messages a second."""
    begun, sent = time.monotonic(), 0
    while sent < _PER_S * _LIVE_S:
        items = [{"to": to, "message": f"live {sent + number}"} for number in range(6)]
        sender.request("POST", "/v1/send/batch", {"items": items})
        sent += len(items)
        time.sleep(max(0.0, begun + sent / _PER_S - time.monotonic()))


def measured(page: Page, sender: Daemon, receiver: Daemon, messages: int) -> dict[str, Any]:
    """Return the figures of a page that is signed in."""
    paints = []
    for _ in range(_RELOADS):
        page.reload()
        expect(page.get_by_role("status").first).to_have_text("Live")
        paints.append(page.evaluate(_PAINT))
    show(page, "Messages")
    expect(page.locator(".row").first).to_be_visible()
    until(lambda: page.evaluate(_END) >= messages, "all rows are there")
    scroll = page.evaluate(_SCROLL)
    page.get_by_role("button", name="Write").click()
    page.evaluate(_WATCH)
    sending = threading.Thread(target=flood, args=(sender, receiver.name))
    sending.start()
    area = page.locator("textarea")
    area.press_sequentially(_TEXT, delay=40)
    sending.join()
    frames = page.evaluate("window.frames_ms")
    keys = sorted(page.evaluate("window.keys")) or [0]
    return {
        "first_paint_ms": round(statistics.median(paints)),
        "scroll_fps": round(scroll, 1),
        "live_fps": round(1000 * len(frames) / sum(frames), 1),
        "key_p95_ms": keys[int(len(keys) * 0.95)],
        "key_worst_ms": keys[-1],
        "keys_lost": len(_TEXT) - len(area.input_value()),
    }


def main(messages: int) -> None:
    """Measure the page of alice, to whom bob sends."""
    with mesh("alice", "bob", start=False) as made, sync_playwright() as driver:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        for daemon in (alice, bob):
            daemon.start()
        for daemon in (alice, bob):
            daemon.ready()
        fill(bob, alice, messages)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(alice.request("POST", "/v1/console/code")[1]["url"])
        expect(page.get_by_role("status").first).to_have_text("Live")
        print(json.dumps(measured(page, bob, alice, messages)), flush=True)
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
