"""Fuzzes what comes from outside, guided by coverage: frames, invites, envelopes, HTTP bodies, replies."""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fuzzing.targets import TARGETS, Target

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / ".fuzz"
_LARGEST_BYTES: Final = 16_384
_MEMORY_MB: Final = 2048
# The time of one input, which ends a run that hangs; what is slow is found by processor time (child.py).
_HUNG_S: Final = 60
_MINUTE_S: Final = 60
_WORDS: Final = re.compile(rb'"[!#-\[\]-~]{1,40}"')
_DONE: Final = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+).* corp: (\d+)/", re.MULTILINE)
_NOISE: Final = ("INFO: ", "WARNING: ", "#")
_SHOWN_LINES: Final = 60
_FOUND: Final = re.compile(r"Test unit written to (\S+)")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./build/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long each target is fuzzed (5)")
    parser.add_argument("--runs", type=int, help="a number of inputs for each target, in place of a time")
    parser.add_argument("--seed", type=int, help="drawn and printed otherwise")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where corpora and findings are (.fuzz)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one target on one input")
    options = parser.parse_args()
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name}: choose from {', '.join(TARGETS)}")
    if options.replay is not None and len(options.targets) != 1:
        parser.error("--replay needs the one target that the input is for")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 1_000_000)
    return options


def main() -> int:
    """Fuzz; 0 when every promise was kept, 1 when an input breaks one."""
    options = arguments()
    if options.replay is not None:
        TARGETS[options.targets[0]].run(options.replay.read_bytes())
        print("no promise is broken")
        return 0
    print(f"seed {options.seed}", flush=True)
    limit = [f"-max_total_time={options.minutes * _MINUTE_S:.0f}"]
    if options.runs is not None:
        limit = [f"-runs={options.runs}"]
    results = [
        fuzz(name, TARGETS[name], [*limit, f"-seed={options.seed}"], options.folder)
        for name in options.targets or TARGETS
    ]
    return 0 if all(results) else 1


def fuzz(name: str, target: Target, limit: Sequence[str], folder: Path) -> bool:
    """Fuzz one target within libFuzzer's limits, and say what came of it; returns whether all was well."""
    corpus, findings = folder / "corpus" / name, folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    with tempfile.NamedTemporaryFile(suffix=".dict") as words:
        words.write(_dictionary(target.seeds()) or b"# none\n")
        words.flush()
        command = [
            *(sys.executable, "-m", "fuzzing.child", f"{target.run.__module__}:{target.run.__name__}"),
            *(*limit, f"-dict={words.name}", f"-artifact_prefix={findings}/{name}-"),
            *(f"-max_len={_LARGEST_BYTES}", f"-rss_limit_mb={_MEMORY_MB}", f"-timeout={_HUNG_S}"),
            str(corpus),
        ]
        # The seed decides, not the hashes of texts.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    return _report(name, done)


def _report(name: str, done: subprocess.CompletedProcess[str]) -> bool:
    told = done.stdout + done.stderr
    ended = _DONE.search(told)
    if done.returncode == 0 and ended is not None:
        inputs, edges, kept = (int(number) for number in ended.groups())
        print(f"{name}: {inputs:,} inputs, {edges:,} edges, {kept:,} inputs kept", flush=True)
        return True
    found = _FOUND.search(told)
    lines = [line for line in told.splitlines() if not line.startswith(_NOISE)]
    print("\n".join([f"{name}: FAILED", *lines[-_SHOWN_LINES:]]))
    if found is not None:
        print(f"reproduce: ./build/fuzz {name} --replay {shlex.quote(found[1])}", flush=True)
    return False


def _dictionary(seeds: list[bytes]) -> bytes:
    """Return the words of the seeds, as libFuzzer reads them: names of fields, and short values."""
    words = sorted({word for seed in seeds for word in _WORDS.findall(seed)})
    return b"".join(b'"\\"%s\\""\n' % word[1:-1] for word in words)


if __name__ == "__main__":
    sys.exit(main())
