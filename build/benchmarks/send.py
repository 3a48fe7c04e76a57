"""POST /v1/send, answered when the row is on the disk; the broker is away, so nothing drains meanwhile."""

from __future__ import annotations

from benchmarks.lab import EMPTY_REQUEST, Caller, Lab, load, median_ms, send_request
from benchmarks.size import size

_CALLERS = 64
_REQUESTS = size(6400, 640)
_LATENCIES = size(400, 3)


def many(lab: Lab) -> tuple[float, float]:
    """64 callers; the ceiling is a daemon with the same handling that stores nothing. Requests/s."""
    return load(lab.erin, "frank", _CALLERS, _REQUESTS), load(lab.frank, "erin", _CALLERS, _REQUESTS)


def many_alone(lab: Lab) -> float:
    """64 callers; requests/s."""
    return load(lab.erin, "frank", _CALLERS, _REQUESTS)


def one_alone(lab: Lab) -> float:
    """One caller; milliseconds."""
    request = send_request("frank")
    with Caller(lab.erin) as caller:
        assert b" 202" in caller.ask(request)
        return median_ms([caller.timed(request) for _ in range(_LATENCIES)])


def one(lab: Lab) -> tuple[float, float]:
    """One caller; the ceiling is a commit and a request that does nothing, taken in turn. Milliseconds."""
    request = send_request("frank")
    sends, commits, empties = [], [], []
    with Caller(lab.erin) as caller:
        assert b" 202" in caller.ask(request)
        for _ in range(_LATENCIES):
            sends.append(caller.timed(request))
            commits.append(lab.probe.commit())
            empties.append(caller.timed(EMPTY_REQUEST))
    return median_ms(sends), median_ms(commits) + median_ms(empties)
