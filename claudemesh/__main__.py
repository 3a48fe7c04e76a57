"""`python -m claudemesh`: the same as the program `claudemesh`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command: what is in a hurry first, everything else by the full command line."""
    from claudemesh.cli import fast

    code = fast.run(sys.argv[1:])
    if code is not None:
        return code
    from claudemesh.cli.main import main as full

    return full()


if __name__ == "__main__":
    sys.exit(main())
