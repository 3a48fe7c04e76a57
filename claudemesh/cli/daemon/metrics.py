"""`claudemesh daemon metrics`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@mesh_option
@json_option
@answers.others("The value of each metric by its name and labels, a number.")
@answers.one()
def metrics(mesh: str | None, as_json: bool) -> None:
    """Print the metrics of the daemon in the Prometheus text format.

    \b
    Examples:
      claudemesh daemon metrics
      claudemesh daemon metrics --json | jq .cm_daemon_connected
    """
    text = LocalClient(mesh).text("/v1/metrics")
    if not as_json:
        output.say(text)
        return
    samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    output.print_json({name: float(value) for name, _, value in samples})
