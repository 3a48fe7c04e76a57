"""The reason of a link that failed: local causes are said as such, all without a traceback."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from claudemesh.daemon.link.faults import LinkFaults

URL = "ws://broker.example.org:7900"


def test_no_descriptors_left_is_a_local_cause() -> None:
    """For any error of the library; the remedy is named, and the condition ends when the link opens."""
    told: list[str | None] = []
    faults = LinkFaults(lambda: URL, told.append)
    reason = faults.reason(OSError(errno.EMFILE, "Too many open files"), opened=False)
    assert "cannot reach" not in reason
    assert "ulimit -n" in reason
    faults.opened()
    assert told[0] is not None
    assert told[1] is None


def test_a_resolver_that_fails_for_lack_of_descriptors_is_a_local_cause() -> None:
    """It says that the name is not known; the limit is asked for itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    opened = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        with pytest.raises(OSError, match="Too many"):
            while True:
                opened.append(os.dup(0))
        reason = LinkFaults(lambda: URL, lambda text: None).reason(
            OSError("Name or service not known"), opened=False
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)
    assert "may open no more files" in reason


@pytest.mark.parametrize("error", [ConnectionResetError(errno.ECONNRESET, "reset"), EOFError("cut")])
def test_a_link_that_is_cut_is_no_local_cause(error: Exception) -> None:
    """It cannot be reached, or was lost."""
    told: list[str | None] = []
    faults = LinkFaults(lambda: URL, told.append)
    assert faults.reason(error, opened=False).startswith(f"cannot reach {URL}")
    assert faults.reason(error, opened=True).startswith(f"the link to {URL} was lost")
    assert told == []


def test_a_reason_has_words_and_no_number_of_the_system() -> None:
    """Users read it in `claudemesh status`."""
    faults = LinkFaults(lambda: URL, lambda text: None)
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert faults.reason(refused, opened=False) == f"cannot reach {URL}: Connection refused"
    several = OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno -2] Name not known")
    assert "[Errno" not in faults.reason(several, opened=False)
