"""Writes docs/grafana-daemon.json, a Grafana dashboard of a daemon's metrics; `--check` compares instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs/grafana-daemon.json"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3

# title, unit, queries with their legends
_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Link up", "short", (("cm_daemon_connected", "{{instance}}"),)),
    ("Round trip to the broker", "ms", (("cm_daemon_lag_ms", "{{instance}}"),)),
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
    (
        "Request duration",
        "s",
        tuple(
            (
                f"histogram_quantile({quantile}, sum by (le, endpoint)"
                " (rate(cm_daemon_ipc_duration_seconds_bucket[5m])))",
                f"{{{{endpoint}}}} p{quantile[2:]}",
            )
            for quantile in ("0.50", "0.99")
        ),
    ),
    (
        "Hooks that ended",
        "ops",
        (("sum by (hook, exit) (rate(cm_daemon_hook_invocations_total[5m]))", "{{hook}} {{exit}}"),),
    ),
    (
        "Hook duration",
        "s",
        tuple(
            (
                f"histogram_quantile({quantile}, sum by (le)"
                " (rate(cm_daemon_hook_duration_seconds_bucket[5m])))",
                f"p{quantile[2:]}",
            )
            for quantile in ("0.50", "0.99")
        ),
    ),
    ("Not genuine", "short", (("cm_daemon_invalid_inbound_total", "{{instance}}"),)),
)


def page() -> str:
    """Return the dashboard as it should be."""
    panels = [_panel(number, *panel) for number, panel in enumerate(_PANELS)]
    made = {
        "title": "claudemesh daemon",
        "uid": "claudemesh-daemon",
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


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit(f"{PAGE} is out of date: run build/dashboard.py")
