"""`python -m claudemesh`: the same as the program `claudemesh`."""

from __future__ import annotations

import sys

from claudemesh.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
