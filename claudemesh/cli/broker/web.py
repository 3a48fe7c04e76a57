"""`claudemesh broker web`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options
from claudemesh.cli.browser import opened, tunnel_line
from claudemesh.cli.options import json_option
from claudemesh.client.errors import ApiError, ClientError

_NOT_FOUND = 404


@click.command()
@click.option("--no-open", is_flag=True, help="Print the address only. Nothing is opened.")
@click.option("--tunnel", is_flag=True, help="Print the ssh command with which another machine reaches it.")
@admin_options
@json_option
@answers.action(url="string", expires_in_s="integer", opened="boolean", tunnel="string?")
def web(no_open: bool, tunnel: bool, as_json: bool, **which: Any) -> int:
    """Open the console of a broker in a browser.

    It shows meshes, members, connections, owed deliveries, the rate and latency of accepts, jobs with their
    findings, and audit events. It shows no message and changes nothing. The address holds a code that begins
    one session of one browser, within 60 seconds.

    \b
    Examples:
      claudemesh broker web
      claudemesh broker web --no-open
      claudemesh broker web --broker wss://mesh.example.org \\
          --admin-token-file token
    """
    client = AdminClient(**which)
    try:
        found = client.post("console/code", {}, "code", "expires_in_s")
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        raise ClientError(
            "console_off",
            f"The broker at {client.url} serves no console. Start it without --no-console, "
            "or update it if it has an older version.",
            next="claudemesh broker config show --origin",
        ) from error
    url = f"{_page(client.url)}/console#{found['code']}"
    line = tunnel_line(urlsplit(url).port or 443) if tunnel else None
    is_open = not (no_open or tunnel or as_json) and opened(url)
    answer = {"url": url, "expires_in_s": found["expires_in_s"], "opened": is_open, "tunnel": line}
    text = f"The console is at {url} (for one browser, within {found['expires_in_s']} s)."
    if line is not None:
        text = f"On the machine with the browser, run\n  {line}\nthen open {url} there, within 60 s."
    elif is_open:
        text = "The console is open in the browser."
    return output.print_answer(as_json, answer, text)


def _page(url: str) -> str:
    """Return the address of a broker as a browser dials it."""
    return "http" + url.removeprefix("ws").rstrip("/")
