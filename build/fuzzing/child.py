"""The process that fuzzes one target: Atheris instruments what it imports, and libFuzzer drives it.

    python -m fuzzing.child MODULE:FUNCTION [libFuzzer's arguments]

An input that breaks a promise, or takes more processor time than `BOUND_S`, ends the process with a
traceback; libFuzzer writes the input to a file.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Final

# Far above what any input of the fuzzers' sizes takes, instrumented, and below what a quadratic parser takes.
BOUND_S: Final = 1.0


class TooSlow(Exception):
    """An input that takes more processor time than any may."""


def bounded(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Make a target fail on an input that takes too long."""

    def call(data: bytes) -> None:
        began_s = time.thread_time()
        run(data)
        took_s = time.thread_time() - began_s
        if took_s > BOUND_S:
            raise TooSlow(f"{len(data)} bytes took {took_s:.1f} s of processor time")

    return call


def function_of(name: str) -> Callable[[bytes], None]:
    """Return the function that `module:function` names."""
    module, _, function = name.partition(":")
    found: Callable[[bytes], None] = getattr(importlib.import_module(module), function)
    return found


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    import atheris

    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["claudemesh", "fuzzing.targets", name.partition(":")[0]]):
        run = function_of(name)
    atheris.Setup([sys.argv[0], *arguments], bounded(run))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
