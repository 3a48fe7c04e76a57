"""Tables of docs/spec are those of the code: frames, states, codes, routes, policies, metrics, numbers."""

from __future__ import annotations

import inspect
import re
from functools import cache

from msgspec import structs

from claudemesh.broker.calls.table import METHODS
from claudemesh.broker.http.routes import ROUTES as BROKER_ROUTES
from claudemesh.broker.mesh_policies import POLICIES
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.types import Mesh
from claudemesh.broker.upkeep.jobs import Jobs
from claudemesh.daemon.api.app import ROUTES as DAEMON_ROUTES
from claudemesh.daemon.disk import Room
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.states import TRANSITIONS as ROW_STEPS
from claudemesh.protocol import errors
from claudemesh.protocol.errors import CLOSE_KINDS
from claudemesh.protocol.features import VERSIONS
from claudemesh.protocol.frames import FRAME_TYPES
from claudemesh.protocol.outcomes import PERMANENT_ERRORS
from claudemesh.protocol.session import TRANSITIONS as SESSION_STEPS
from tests.support.pages import ROOT

_CODE = re.compile(r"`([^`]+)`")


@cache
def section(page: str, heading: str) -> str:
    """Return the text of a section, up to the next heading of any level."""
    text = (ROOT / "docs" / "spec" / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {heading}"
    return found[1]


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of a section's tables, without their heads."""
    table = []
    for block in re.findall(r"(?:^\|.*\n)+", section(page, heading), re.MULTILINE):
        lines = block.splitlines()[2:]
        table += [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return table


def codes(cell: str) -> list[str]:
    """Return the code spans of a cell."""
    return _CODE.findall(cell)


def test_protocol_lists_every_frame() -> None:
    assert {codes(row[0])[0] for row in rows("protocol.md", "Frames")} == FRAME_TYPES


def test_protocol_has_the_table_of_session_states() -> None:
    listed = {
        (codes(state)[0], frame, side, codes(following)[0])
        for state, frames, side, following in rows("protocol.md", "Session states")
        for frame in codes(frames)
    }
    assert listed == {
        (state.value, frame.TYPE, side, following.value)
        for side, steps in SESSION_STEPS.items()
        for state, step in steps.items()
        for frame, following in step.items()
    }


def test_protocol_lists_every_status_of_an_error_code() -> None:
    listed: dict[str, set[int]] = {}
    for statuses, names in rows("protocol.md", "Errors over HTTP"):
        for code in codes(names):
            listed[code] = {int(status) for status in statuses.split(", ")}
    known = errors._STATUS
    assert {code for code in known if known[code] not in listed.get(code, set())} == set()


def test_protocol_lists_every_close_code_with_its_kind() -> None:
    listed = {(int(row[0]), codes(row[1])[0]) for row in rows("protocol.md", "Close codes")}
    assert {(int(code), kind) for code, kind in CLOSE_KINDS.items()} <= listed


def test_protocol_lists_the_permanent_errors() -> None:
    dead = next(row for row in rows("protocol.md", "send_result") if row[0] == "dead")
    assert set(codes(dead[1])) == PERMANENT_ERRORS


def test_protocol_lists_every_call() -> None:
    assert {codes(row[0])[0] for row in rows("protocol.md", "Calls")} == METHODS.keys()


def test_protocol_names_every_feature() -> None:
    named = codes(section("protocol.md", "Features"))
    assert VERSIONS.keys() <= set(named)


def test_daemon_has_the_table_of_outbox_states() -> None:
    listed = [row for row in rows("daemon.md", "Outbox") if len(row) == 3]
    steps = {(codes(origin)[0], codes(target)[0]) for origin, target, _ in listed}
    assert steps == {
        (origin.value, target.value) for origin, targets in ROW_STEPS.items() for target in targets
    }


def test_daemon_lists_every_route() -> None:
    listed = set()
    for row in rows("daemon.md", "Local API"):
        method, prefix = "", ""
        for span in codes(row[0]):
            method, path = span.split(" ") if " " in span else (method, span)
            # A path that follows another one may leave out what both have in common.
            path = path if path.startswith("/v1/") else prefix + path
            listed.add((method, path))
            prefix = path.rsplit("/", 1)[0]
    assert listed == {(route.method, route.path) for route in DAEMON_ROUTES}


def test_broker_lists_every_route() -> None:
    text = section("broker.md", "Operation")
    for route in BROKER_ROUTES:
        path = route.path.removeprefix("/v1/admin/") if route.path.startswith("/v1/admin/") else route.path
        assert f"`{path}`" in text or f"{path}`" in text, route.path


def test_broker_lists_every_policy_with_its_default() -> None:
    listed = rows("broker.md", "Policies")
    assert {name for row in listed for name in codes(row[0])} == POLICIES
    defaults = {field.name: field.default for field in structs.fields(Mesh)}
    shown = {1 << 37: "128 GiB", 1 << 34: "16 GiB", 1 << 28: "256 MiB"}
    for row in listed:
        names = codes(row[0])
        values = re.sub(r"`", "", row[1]).split(", ")
        for name, value in zip(names, values, strict=True):
            default = defaults[name]
            text = shown.get(default, f"{default:,}" if isinstance(default, int) else default)
            assert value == text, name


def test_broker_lists_every_job() -> None:
    made = re.findall(r'"([a-z]+-[a-z]+)": _Job', inspect.getsource(Jobs))
    assert made
    assert {codes(row[0])[0] for row in rows("broker.md", "Retention and audits")} == set(made)


def test_broker_states_its_limits() -> None:
    limits = Limits()
    delivering = section("broker.md", "Delivering")
    for value in (limits.window, limits.outgoing_frames):
        assert f" {value} " in delivering or f" {value}," in delivering
    reading = section("broker.md", "Reading from a connection")
    for value in (limits.pending_sends, limits.pending_acks):
        assert f" {value} " in reading


def metric_names(page: str) -> set[str]:
    """Return the names of a page's metrics without labels and the ending of counters."""
    spans = [span for row in rows(page, "Metrics") for span in codes(row[0])]
    return {span.partition("{")[0].removesuffix("_total") for span in spans}


def exposed(text: str, prefix: str) -> set[str]:
    """Return the names of a page in Prometheus' format, without prefix and the ending of counters."""
    names = re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)
    return {name.removeprefix(prefix).removesuffix("_total") for name in names}


def test_broker_lists_every_metric() -> None:
    assert metric_names("broker.md") == exposed(BrokerMetrics().render().decode(), "cm_broker_") | {
        "degraded"
    }


def test_daemon_lists_every_metric() -> None:
    page = DaemonMetrics().render(
        connected=False,
        lag_ms=None,
        depth={},
        room=Room(0.0, 0.0),
        oldest_s=0.0,
        held_s=0.0,
        streams=0,
        files={},
        files_bytes=0,
        sealed={},
        keys_wanted=0,
        wraps_wrong=0,
    )
    assert metric_names("daemon.md") == exposed(page.decode(), "cm_daemon_") | {"degraded"}
