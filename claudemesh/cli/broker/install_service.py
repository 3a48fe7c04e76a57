"""`claudemesh broker install-service` and `uninstall-service`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claudemesh.cli import answers
from claudemesh.cli.options import json_option
from claudemesh.cli.service.options import install_options, manager_option
from claudemesh.home.paths import broker_data_dir
from claudemesh.runtime.exits import CONFIGURATION, ExitWith

if TYPE_CHECKING:
    from claudemesh.cli.service.install import Wish

SYSTEM_DATA = Path("/var/lib/claudemesh")
_FIRST_FREE_PORT = 1024


@click.command("install-service")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Data directory. Default: {SYSTEM_DATA} for --system, else that of `broker up`.",
)
@click.option(
    "--service-user", metavar="NAME", help="User of a service of the system. Default: the owner of DIR."
)
@install_options
@json_option
@answers.action(
    status="string", unit="string", file="string", enabled="boolean", started="boolean", notes="array"
)
def install_service(data_dir: Path | None, service_user: str | None, as_json: bool, **options: Any) -> int:
    """Install a broker as a service, which starts with the host.

    On Linux it is the unit claudemesh-broker.service of systemd, on macOS a property list of launchd. The
    settings of the broker are those of DIR/broker.toml, and of the variables in claudemesh/broker.env below
    /etc or ~/.config.

    \b
    Examples:
      claudemesh broker install-service --now
      sudo useradd --system claudemesh
      sudo install -d -o claudemesh -m 0700 /var/lib/claudemesh
      sudo claudemesh broker install-service --system --now
    """
    # Imported here: the help page needs none of it.
    from claudemesh.cli.service import install
    from claudemesh.cli.service.outcome import install_unit, print_unit

    wish = install.Wish(**options)
    folder = (data_dir or (SYSTEM_DATA if wish.for_system else broker_data_dir())).absolute()
    if not wish.only_print:
        install.check_wish(wish)
        _require(folder, wish.for_system)
    text, file, unit = service_file(folder, wish, service_user)
    if wish.only_print:
        return print_unit(text, file, wish, _about(folder))
    return install_unit(text, file, unit, wish, as_json=as_json)


@click.command("uninstall-service")
@manager_option
@json_option
@answers.action(status="string", unit="string")
def uninstall_service(is_system: bool | None, as_json: bool) -> int:
    """Stop the service of the broker and remove it. The data stays.

    \b
    Examples:
      sudo claudemesh broker uninstall-service --system
    """
    from claudemesh.cli.service import install, launchd, units
    from claudemesh.cli.service.outcome import remove_unit

    wish = install.Wish(is_system)
    unit = launchd.BROKER_LABEL if install.is_macos() else units.BROKER_UNIT
    file = f"{unit}.plist" if install.is_macos() else unit
    return remove_unit(file, unit, wish, as_json=as_json)


def service_file(folder: Path, wish: Wish, service_user: str | None) -> tuple[str, str, str]:
    """Return the text of a broker's unit or property list, the name of its file, and that of the service."""
    from claudemesh.cli.service import install, launchd, units

    low_port = 0 < _port(folder) < _FIRST_FREE_PORT
    place = install.placement(folder, wish, service_user, low_port=low_port)
    if install.is_macos():
        label = launchd.BROKER_LABEL
        return launchd.broker_plist(place).decode(), f"{label}.plist", label
    return units.broker_unit(place), units.BROKER_UNIT, units.BROKER_UNIT


def _about(folder: Path) -> list[str]:
    """Return a note about a data directory that is not the one of `broker up`."""
    usual = broker_data_dir().absolute()
    if folder == usual:
        return []
    return [f"Its data directory is {folder}. A broker of `claudemesh broker up` has its data in {usual}."]


def _require(folder: Path, is_system: bool) -> None:
    """Make the data directory of a user's service. `ExitWith` 78 when that of the system is missing."""
    if folder.is_dir():
        return
    if is_system:
        raise ExitWith(
            CONFIGURATION,
            "no_data_dir",
            f"The data directory {folder} does not exist. Make a user for the broker "
            "(`useradd --system claudemesh`), and the directory as its own.",
            next=f"install -d -o claudemesh -m 0700 {folder}",
        )
    from claudemesh.runtime.files import make_private_dir

    make_private_dir(folder)


def _port(folder: Path) -> int:
    """Return the port of the settings; a wrong setting is told by the broker's own start."""
    from claudemesh.broker.settings import load_settings

    try:
        return load_settings({"data_dir": folder}, {}).address[1]
    except (ExitWith, OSError):
        return 0
