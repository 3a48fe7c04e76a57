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
    """Run the fast path, or else the full command line or the server of a session."""
    from claudemesh.cli import fast_send
    from claudemesh.runtime.trust import distrust

    arguments = sys.argv[1:]
    code = fast_send.run(arguments, distrust)
    if code is not None:
        return code
    # A send that was tried already has its id among the arguments now, so that nothing is sent twice.
    sys.argv[1:] = arguments
    from claudemesh.cli.entry import main as program

    return program(arguments)


if __name__ == "__main__":
    sys.exit(main())
