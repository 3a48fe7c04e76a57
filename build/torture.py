"""Torments a cluster of the artefact with faults drawn from a seed, then checks what the product promises."""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import signal
import sys

from tortures.checks import check
from tortures.cluster import Cluster, Stuck
from tortures.plan import KINDS, Fault, Shape, plan
from tortures.report import spell, spell_json, summarize
from tortures.run import Say, run

_DAEMONS = ("alice", "bob", "carol", "dave")
_SMALL = 3
_MOST_BROKERS = 3


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./build/torture",
        description=__doc__,
        epilog="kinds: " + "; ".join(f"{kind.name} ({kind.summary})" for kind in KINDS.values()),
    )
    parser.add_argument("--seed", type=int, help="replay the schedule of a seed; drawn and printed otherwise")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults are drawn (5)")
    parser.add_argument(
        "--postgres", action="store_true", help="several brokers on a Postgres of the run's own"
    )
    parser.add_argument(
        "--brokers", type=int, choices=range(2, _MOST_BROKERS + 1), default=2, help="with --postgres"
    )
    parser.add_argument("--daemons", type=int, choices=range(_SMALL, len(_DAEMONS) + 1), default=_SMALL)
    parser.add_argument("--only", metavar="KIND,…", help="draw these kinds alone")
    parser.add_argument("--without", metavar="KIND,…", help="draw all kinds but these")
    parser.add_argument("--no-faults", action="store_true", help="the workload alone: the harness must pass")
    parser.add_argument("--plan", action="store_true", help="print the schedule and do nothing")
    parser.add_argument(
        "--keep", action="store_true", help="keep the working folder of a run that passed, too"
    )
    parser.add_argument("--json", action="store_true", help="the summary as JSON on standard output")
    options = parser.parse_args()
    options.kinds = [] if options.no_faults else _kinds(parser, options.only, options.without)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def _kinds(parser: argparse.ArgumentParser, only: str | None, without: str | None) -> list[str]:
    wanted = only.split(",") if only else list(KINDS)
    unwanted = without.split(",") if without else []
    for name in (*wanted, *unwanted):
        if name not in KINDS:
            parser.error(f"there is no kind {name}: choose from {', '.join(KINDS)}")
    return [name for name in wanted if name not in unwanted]


def main() -> int:
    """Run; 0 when every promise was kept, 1 when one was broken, 2 when the run could not be made."""
    options = arguments()
    brokers = tuple(f"broker{n + 1}" for n in range(options.brokers if options.postgres else 1))
    shape = Shape(_DAEMONS[: options.daemons], brokers, options.postgres)
    faults = plan(options.seed, options.minutes, options.kinds, shape)
    out = sys.stderr if options.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    say(
        f"seed {options.seed}: {len(faults)} faults in {options.minutes:g} min "
        f"({', '.join(options.kinds) or 'none'})"
    )
    if options.plan:
        for fault in faults:
            say(f"{fault.at_s:7.1f} s  {fault.kind} {fault.detail} on {fault.target}, {fault.length_s} s")
        return 0
    try:
        return asyncio.run(_run(options, shape, faults, say))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted: everything is stopped and removed")
        return 130


async def _run(options: argparse.Namespace, shape: Shape, faults: tuple[Fault, ...], say: Say) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cluster = Cluster(shape, sorted({fault.kind for fault in faults}))
    keep = True
    try:
        if cluster.missing:
            for kind, what in cluster.missing.items():
                say(f"error: {kind} needs {what}; install it, or leave the kind out with --without {kind}")
            keep = False
            return 2
        try:
            result = await run(cluster, faults, options.seed, options.minutes, say)
        except (Stuck, AssertionError) as error:
            say(f"FAILED: {error}")
            return 1
        violations = check(result.history)
        summary = summarize(options.seed, result, violations)
        say(spell(summary))
        if options.json:
            print(spell_json(summary))
        keep = bool(violations) or options.keep
        return 1 if violations else 0
    except asyncio.CancelledError:
        keep = False
        raise
    finally:
        await cluster.close(keep=keep)
        if keep:
            say(f"the working folder is {cluster.root}; replay: ./build/torture {_replay(options)}")


def _replay(options: argparse.Namespace) -> str:
    words = ["--seed", str(options.seed), "--minutes", f"{options.minutes:g}"]
    words += ["--postgres", "--brokers", str(options.brokers)] if options.postgres else []
    words += ["--daemons", str(options.daemons)] if options.daemons != _SMALL else []
    for name in ("only", "without"):
        value = getattr(options, name)
        words += [f"--{name}", value] if value else []
    return shlex.join([*words, *(["--no-faults"] if options.no_faults else [])])


if __name__ == "__main__":
    sys.exit(main())
