"""Writes docs/grafana-daemon.json and docs/grafana-broker.json, Grafana dashboards of the metrics.

`--check` compares instead.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeAlias

_DOCS = Path(__file__).parents[1] / "docs"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3

# title, unit, queries with their legends
Panel: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]


def _quantiles(metric: str, label: str | None = None) -> tuple[tuple[str, str], ...]:
    """Return the queries of the median and the 99th percentile of a histogram."""
    by, legend = ("le", "") if label is None else (f"le, {label}", f"{{{{{label}}}}} ")
    return tuple(
        (
            f"histogram_quantile({quantile}, sum by ({by}) (rate({metric}_bucket[5m])))",
            f"{legend}p{quantile[2:]}",
        )
        for quantile in ("0.50", "0.99")
    )


_DAEMON: tuple[Panel, ...] = (
    ("Link up", "short", (("cm_daemon_connected", "{{instance}}"),)),
    ("Round trip to the broker", "s", (("cm_daemon_lag_seconds", "{{instance}}"),)),
    ("Links lost", "ops", (("sum by (reason) (rate(cm_daemon_reconnects_total[5m]))", "{{reason}}"),)),
    ("Outbox", "short", (("cm_daemon_outbox_depth", "{{instance}} {{status}}"),)),
    ("Oldest pending send", "s", (("cm_daemon_outbox_age_seconds", "{{instance}}"),)),
    ("How full", "percent", (("cm_daemon_disk_pct", "{{instance}} {{kind}}"),)),
    (
        "Sends that ended",
        "ops",
        (("sum by (kind, status) (rate(cm_daemon_send_total[5m]))", "{{kind}} {{status}}"),),
    ),
    ("Messages received", "ops", (("sum by (kind) (rate(cm_daemon_recv_total[5m]))", "{{kind}}"),)),
    (
        "There already",
        "ops",
        (("sum by (direction) (rate(cm_daemon_dedupe_total[5m]))", "{{direction}}"),),
    ),
    (
        "Requests of local programs",
        "ops",
        (
            (
                "sum by (endpoint, status) (rate(cm_daemon_ipc_request_total[5m]))",
                "{{endpoint}} {{status}}",
            ),
        ),
    ),
    ("Request duration", "s", _quantiles("cm_daemon_ipc_duration_seconds", "endpoint")),
    (
        "Hooks that ended",
        "ops",
        (("sum by (hook, exit) (rate(cm_daemon_hook_invocations_total[5m]))", "{{hook}} {{exit}}"),),
    ),
    ("Hook duration", "s", _quantiles("cm_daemon_hook_duration_seconds")),
    ("Files on their way", "short", (("cm_daemon_files_waiting", "{{instance}} {{state}}"),)),
    ("Not genuine", "short", (("cm_daemon_invalid_inbound_total", "{{instance}}"),)),
    ("Conditions", "short", (("cm_daemon_degraded", "{{instance}} {{code}}"),)),
)

_BROKER: tuple[Panel, ...] = (
    ("Up", "short", (('up{job="claudemesh-broker"}', "{{instance}}"),)),
    ("Conditions", "short", (("cm_broker_degraded", "{{instance}} {{code}}"),)),
    ("Connections", "short", (("cm_broker_connections", "{{instance}}"),)),
    (
        "Sends answered",
        "ops",
        (("sum by (status) (rate(cm_broker_accepts_total[5m]))", "{{status}}"),),
    ),
    ("From a send to its answer", "s", _quantiles("cm_broker_accept_seconds")),
    ("Sends in a commit", "short", _quantiles("cm_broker_accept_batch_size")),
    (
        "Deliveries",
        "ops",
        (
            ("sum(rate(cm_broker_deliveries_total[5m]))", "sent"),
            ("sum(rate(cm_broker_deliveries_acknowledged_total[5m]))", "acknowledged"),
        ),
    ),
    ("Not acknowledged yet", "short", (("cm_broker_deliveries_unacknowledged", "{{instance}}"),)),
    (
        "Handshakes",
        "ops",
        (("sum by (outcome) (rate(cm_broker_handshakes_total[5m]))", "{{outcome}}"),),
    ),
    (
        "Connections that the broker closed",
        "ops",
        (("sum by (kind) (rate(cm_broker_closes_total[5m]))", "{{kind}}"),),
    ),
    (
        "Limits",
        "ops",
        (
            (
                'sum by (decision) (rate(cm_broker_rate_limit_decisions_total{decision!="allowed"}[5m]))',
                "rate {{decision}}",
            ),
            ("sum by (quota) (rate(cm_broker_quota_refused_total[5m]))", "quota {{quota}}"),
            ("sum by (limit) (rate(cm_broker_guard_limits_total[5m]))", "{{limit}}"),
        ),
    ),
    ("Joins", "ops", (("sum by (outcome) (rate(cm_broker_joins_total[5m]))", "{{outcome}}"),)),
    (
        "Signals between brokers",
        "ops",
        (
            ("sum by (kind) (rate(cm_broker_signals_total[5m]))", "{{kind}}"),
            ("sum(rate(cm_broker_wakeups_missed_total[5m]))", "missed"),
        ),
    ),
    (
        "Failed operations of the store",
        "ops",
        (("sum by (operation) (rate(cm_broker_store_errors_total[5m]))", "{{operation}}"),),
    ),
    ("Incomplete messages found", "short", (("cm_broker_atomicity_violation_found_total", "{{kind}}"),)),
)

DASHBOARDS = {"daemon": _DAEMON, "broker": _BROKER}


def page(program: str) -> str:
    """Return the dashboard of a program as it should be."""
    panels = [_panel(number, *panel) for number, panel in enumerate(DASHBOARDS[program])]
    made = {
        "title": f"claudemesh {program}",
        "uid": f"claudemesh-{program}",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
            ]
        },
        "panels": panels,
    }
    return json.dumps(made, indent=1) + "\n"


def _panel(number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + place), "expr": query, "legendFormat": legend, "datasource": source}
            for place, (query, legend) in enumerate(queries)
        ],
    }


def main(check: bool) -> None:
    """Write the files, or compare them."""
    for program in DASHBOARDS:
        path = _DOCS / f"grafana-{program}.json"
        if not check:
            path.write_text(page(program))
        elif not path.exists() or path.read_text() != page(program):
            sys.exit(f"{path} is out of date: run build/dashboard.py")


if __name__ == "__main__":
    main("--check" in sys.argv)
