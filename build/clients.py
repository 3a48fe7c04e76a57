"""Drives real clients of agents: two hosts, the archive, a stub of the vendor's API, a pseudo-terminal."""

from __future__ import annotations

import argparse
import sys

from benchmarks.archive import refresh_archive
from clientele import claude_cases, codex, inspector, node_clients


def main() -> int:
    """Run the cases; 0 when none has failed."""
    parser = argparse.ArgumentParser(prog="./build/clients", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="beginnings of names; default: all")
    wanted = tuple(parser.parse_args().cases) or ("",)
    refresh_archive()
    results = []
    for suite in (*claude_cases.suites(), *codex.suites(), *node_clients.suites(), *inspector.suites()):
        results += suite.run(wanted)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
