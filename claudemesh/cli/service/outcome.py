"""Output of `install-service` and `uninstall-service`, for the services of daemons and of brokers."""

from __future__ import annotations

from collections.abc import Sequence

from claudemesh.cli import output
from claudemesh.cli.service import install
from claudemesh.cli.service.install import Wish


def print_unit(text: str, file: str, wish: Wish, notes: Sequence[str] = ()) -> int:
    """Print the text of a unit, and beside it which unit it is and why; return exit code 0."""
    output.say(text.rstrip())
    whose = "the system" if wish.for_system else "this user"
    why = f"This is the unit of {whose}, for the file {install.unit_path(file, wish)}."
    if wish.is_system is None:
        given, other = ("runs as root", "--user") if wish.for_system else ("does not run as root", "--system")
        why += f" The command {given}; {other} gives the other one."
    for note in (why, *notes):
        output.note(note)
    return 0


def install_unit(text: str, file: str, unit: str, wish: Wish, *, as_json: bool) -> int:
    """Install a unit, print the result, and return exit code 0."""
    outcome = install.install(text, file, unit, wish)
    for note in outcome.notes:
        output.note(note)
    did = "installed and started" if outcome.started else "installed"
    return output.print_answer(as_json, outcome.as_json(), f"{did} {unit} ({outcome.file})")


def remove_unit(file: str, unit: str, wish: Wish, *, as_json: bool) -> int:
    """Remove a unit, print the result, and return exit code 0."""
    was_there = install.uninstall(file, unit, wish)
    status = "removed" if was_there else "not installed"
    text = f"removed {unit}" if was_there else f"{unit} is not installed"
    return output.print_answer(as_json, {"status": status, "unit": unit}, text)
