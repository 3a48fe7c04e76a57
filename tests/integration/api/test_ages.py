"""Clocks that are wrong end no send: daemons whose wall clock is set while they run or before they start."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.daemon.app import Daemon
from claudemesh.daemon.outbox.request import parse_send
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.paths import DaemonPaths
from claudemesh.protocol.features import Features
from tests.integration.api.served import join
from tests.support.clock import ManualClock

FEATURES = Features("retention_scoped", 7, None, 262_144, 1 << 20, "prefer_newest", None, False)
MAX_AGE_H = 7 * 24 - 24
NOW = 1_780_000_000_000


async def dead(daemon: Daemon, broker_ms: int) -> int:
    """Let the broker be reached, age the outbox, and return how many rows have died."""
    daemon.parts.stores.clocks.broker.heard(broker_ms)
    daemon.parts.housekeeping.link_up(FEATURES)
    await daemon.parts.housekeeping.expire()
    return (await daemon.routes.outbox.store.counts())["dead"]


@pytest.mark.parametrize("years", [-1, 1])
async def test_a_wall_clock_that_is_years_off_ends_no_send(tmp_path: Path, years: int) -> None:
    """A host without a clock of its own accepts offline; then the broker is reached, and says the time."""
    clock = ManualClock(NOW + years * 365 * 24 * 3_600_000)
    paths = DaemonPaths(tmp_path / "h", "demo")
    join(paths)
    daemon = Daemon(paths, DaemonSettings(), clock)
    await daemon.start()
    try:
        for number in range(20):
            answer = await daemon.routes.send.submit(parse_send({"to": "bob", "message": str(number)}))
            assert answer.status == 202
        clock.advance(hours=1)
        assert await dead(daemon, NOW) == 0
        clock.jump(hours=-years * 365 * 24)
        assert await dead(daemon, NOW) == 0
        clock.advance(hours=MAX_AGE_H)
        assert await dead(daemon, NOW + MAX_AGE_H * 3_600_000) == 20
    finally:
        await daemon.stop()


async def test_age_goes_on_over_a_restart_whatever_the_clocks_were_set_to(tmp_path: Path) -> None:
    """The lived clock is kept in a file; without it, the newest row tells how far it was."""
    paths = DaemonPaths(tmp_path / "h", "demo")
    join(paths)
    clock = ManualClock(NOW)
    daemon = Daemon(paths, DaemonSettings(), clock)
    await daemon.start()
    await daemon.routes.send.submit(parse_send({"to": "bob", "message": "old"}))
    clock.advance(hours=MAX_AGE_H - 1)
    await daemon.routes.send.submit(parse_send({"to": "bob", "message": "new"}))
    await daemon.stop()
    for lost in (False, True):
        if lost:
            paths.lived_clock.unlink()
        again = ManualClock(NOW + 10 * 365 * 24 * 3_600_000)
        daemon = Daemon(paths, DaemonSettings(), again)
        await daemon.start()
        try:
            assert await dead(daemon, NOW) == 0
            if lost:
                again.advance(hours=1.1)
                assert await dead(daemon, NOW) == 1
        finally:
            await daemon.stop()
