"""Measures rows with another build: `python -m benchmarks.worker [--archive FILE] [--quick]`.

It runs with the folder of that build, or of this tree for an archive, in front of PYTHONPATH: the client and
the test support are those of the build. Each line of stdin names a function as `module:name`; the answer is
a line of JSON, with a value or an error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from benchmarks.lab import Lab


def main() -> int:
    """Answer until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    # A line that a row prints is no answer.
    os.dup2(2, 1)
    try:
        with Lab(options.archive, storeless=False) as lab:
            answer(lab, sys.stdin, answers)
    except KeyboardInterrupt:
        pass
    return 0


def answer(lab: Lab, questions: Iterable[str], answers: TextIO) -> None:
    """Say that the processes run, then answer each question."""
    print(json.dumps({"value": 0.0}), file=answers, flush=True)
    for line in questions:
        module, _, name = line.strip().partition(":")
        try:
            said = {"value": getattr(importlib.import_module(module), name)(lab)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
