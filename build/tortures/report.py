"""The report of a run: a table of faults with their evidence, figures, and the verdict, as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tortures.checks import Violation
from tortures.plan import KINDS
from tortures.run import Result

_EXAMPLES: Final = 8


def summarize(seed: int, result: Result, violations: Sequence[Violation]) -> dict[str, Any]:
    """Return everything that is told at the end, as plain values."""
    faults: dict[str, dict[str, int]] = {}
    for upset in sorted(result.history.upsets, key=lambda upset: upset.number):
        row = faults.setdefault(upset.kind, {"faults": 0, "evidence": 0})
        row["faults"] += 1
        row["evidence"] += upset.evidence
    return {
        "seed": seed,
        "passed": not violations,
        "faults": faults,
        "figures": result.figures,
        "ended": [[ended.process, ended.code] for ended in result.history.ended],
        "violations": [[v.check, v.subject, v.detail] for v in violations],
    }


def spell(summary: dict[str, Any]) -> str:
    """Return the summary as a table and a verdict."""
    lines = ["", f"{'fault':<13}{'times':>6}{'evidence':>10}"]
    for kind in KINDS:
        if kind in summary["faults"]:
            row = summary["faults"][kind]
            lines.append(f"{kind:<13}{row['faults']:>6}{row['evidence']:>10}")
    lines += ["", "  ".join(f"{name} {count:,}" for name, count in summary["figures"].items())]
    if summary["ended"]:
        ended = Counter(f"{process} exit {code}" for process, code in summary["ended"])
        lines.append("ended by themselves: " + ", ".join(f"{name} ({n})" for name, n in ended.items()))
    counts = Counter(check for check, _, _ in summary["violations"])
    shown: Counter[str] = Counter()
    for check, subject, detail in summary["violations"]:
        shown[check] += 1
        if shown[check] <= _EXAMPLES:
            lines.append(f"  {check}: {subject}: {detail}")
        elif shown[check] == _EXAMPLES + 1:
            lines.append(f"  {check}: and {counts[check] - _EXAMPLES} more")
    broken = ", ".join(f"{check} ({count})" for check, count in counts.items())
    lines += ["", "PASSED" if summary["passed"] else f"FAILED: {broken}"]
    return "\n".join(lines)


def spell_json(summary: dict[str, Any]) -> str:
    """Return the summary as JSON."""
    return json.dumps(summary, indent=2)
