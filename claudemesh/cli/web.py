"""`claudemesh web`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.browser import opened, tunnel_line
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.option("--no-open", is_flag=True, help="Print the address only. Nothing is opened.")
@click.option("--tunnel", is_flag=True, help="Print the ssh command with which another machine reaches it.")
@mesh_option
@json_option
@answers.action(url="string", port="integer", expires_in_s="integer", opened="boolean", tunnel="string?")
def web(no_open: bool, tunnel: bool, mesh: str | None, as_json: bool) -> int:
    """Open the console of the daemon in a browser.

    It shows messages as they arrive, members, topics, sends, runs of hooks and settings. The address holds a
    code that begins one session of one browser, within 60 seconds. Other users of this machine may see the
    command line of a browser: with --no-open the address is printed only.

    \b
    Examples:
      claudemesh web
      claudemesh web --no-open
      claudemesh web --tunnel
    """
    found = LocalClient(mesh).post("/v1/console/code")
    line = tunnel_line(found["port"]) if tunnel else None
    is_open = not (no_open or tunnel or as_json) and opened(found["url"])
    answer = {
        "url": found["url"],
        "port": found["port"],
        "expires_in_s": found["expires_in_s"],
        "opened": is_open,
        "tunnel": line,
    }
    text = f"The console is at {found['url']} (for one browser, within {found['expires_in_s']} s)."
    if line is not None:
        text = f"On the machine with the browser, run\n  {line}\nthen open {found['url']} there, within 60 s."
    elif is_open:
        text = "The console is open in the browser."
    return output.print_answer(as_json, answer, text)
