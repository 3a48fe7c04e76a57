"""QR code of an invite, drawn with half blocks: two rows of modules in a line."""

from __future__ import annotations

import shutil
import sys
from io import StringIO

import click

from claudemesh.cli import output

# Modules of quiet zone around the code; dark terminals add their own.
_BORDER = 2


def print_qr(link: str) -> None:
    """Print the QR code of an invite, in the link's short spelling.

    A terminal that is too narrow for it gets a note instead.
    """
    # Imported here: only an invite needs it.
    import segno

    from claudemesh.protocol.invites import code_of_link

    code = segno.make(code_of_link(link), error="l", boost_error=False, micro=False)
    width, _ = code.symbol_size(border=_BORDER)
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and width > columns:
        output.note(
            f"The QR code needs {width} columns, and this terminal has {columns}. Widen it or "
            "choose a smaller font, and run this again, or send the link."
        )
        return
    drawn = StringIO()
    code.terminal(drawn, border=_BORDER, compact=True)
    for line in drawn.getvalue().splitlines():
        # The colours make the dark modules dark on any terminal; outside of one they are left out.
        click.echo(click.style(line, fg="bright_white", bg="black"))
