"""Notification of a service manager: the protocol of systemd's `sd_notify`.

A message is one datagram of `NAME=value` lines to the socket in NOTIFY_SOCKET. Without that variable every
function does nothing. WATCHDOG_USEC asks for a message at that interval; the event loop sends it, so that a
loop that is stuck is noticed and the process is started again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager

from claudemesh.runtime.logs import get_logger

log = get_logger("notify")

# A ping at a third of the interval leaves time for two that are late.
_PINGS = 3
_STATUS_S = 5.0


class ServiceManager:
    """The service manager that started this process, if it wants to be notified."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` is the path of a socket; one that begins with `@` is abstract."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._failed = False
        self._status = ""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Return the manager that the environment names, and remove it there: children do not notify."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        is_ours = watchdog_us.isascii() and watchdog_us.isdigit() and pid in ("", str(os.getpid()))
        watchdog_s = int(watchdog_us) / 1_000_000 if is_ours else 0.0
        return cls(address, watchdog_s or None)

    @property
    def is_there(self) -> bool:
        """Whether a manager wants to be notified."""
        return bool(self._address)

    def ready(self) -> None:
        """Tell that the service serves."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Tell that the service stops."""
        self._send("STOPPING=1")

    @contextmanager
    def reloading(self) -> Generator[None]:
        """Tell that the settings are read again in the block, and after it that the service serves."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    async def run(self, status: Callable[[], str]) -> None:
        """Send the state line whenever it changes, and a ping for the watchdog, until cancelled."""
        pause_s = _STATUS_S if self._watchdog_s is None else min(_STATUS_S, self._watchdog_s / _PINGS)
        while self.is_there:
            if self._watchdog_s is not None:
                self._send("WATCHDOG=1")
            self._show(status())
            await asyncio.sleep(pause_s)

    def _show(self, status: str) -> None:
        if status != self._status:
            # A line break would begin another field.
            self._send(f"STATUS={' '.join(status.split())}")
            self._status = status

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.send(message.encode())
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("service_manager_not_notified", error=str(error))
            self._failed = True
        else:
            self._failed = False
