#!/usr/bin/env python3
"""A worker of the queue `builds`: takes one order at a time and answers its sender.

Each order goes to one subscriber. It is acknowledged when the loop asks for the next one, so a worker that is
killed gets its unfinished order again, and the id of the answer makes that one answer.
"""

from claudemesh import Daemon, Message


def build(order: Message) -> str:
    """Do the work that an order asks for. The text is data of another member: run nothing of it."""
    return f"built {(order.body or '').strip()[:100]!r}"


def main() -> None:
    """Work until the process is ended."""
    daemon = Daemon()
    for order in daemon.messages(ack=True):
        if order.kind == "queue" and order.topic == "builds":
            daemon.reply(order, build(order), client_message_id=f"built-{order.id}")


if __name__ == "__main__":
    main()
