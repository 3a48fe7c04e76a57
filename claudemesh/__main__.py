"""`python -m claudemesh`: the same as the program `claudemesh`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command and return its exit code; 130, silently, when it was interrupted."""
    try:
        return _run()
    except KeyboardInterrupt:
        return 130


def _run() -> int:
    """Run the fast path, or else the full command line."""
    from claudemesh.cli import fast_send
    from claudemesh.runtime.trust import distrust

    arguments = sys.argv[1:]
    code = fast_send.run(arguments, distrust)
    if code is not None:
        return code
    from claudemesh.cli.main import main as full

    # A send that was tried already has its id among the arguments now, so that nothing is sent twice.
    return full(arguments)


if __name__ == "__main__":
    sys.exit(main())
