#!/usr/bin/env python3
"""A bot that has a version built and tells the team: `deploy_bot.py VERSION MEMBER LOG`.

It asks the workers of the queue `builds` (worker.py is one), posts the answer to the topic `releases` with a
mention of the member, shares the log with them, and then answers the question `status`.

Each send has an id of its own, so the bot may be ended and started again at any time: nothing is sent twice.
"""

import logging
import sys

from claudemesh import Daemon, DaemonError, NoReply


def deploy(daemon: Daemon, version: str) -> str:
    """Have a worker build the version, and return its answer."""
    answer = daemon.request(
        daemon.queue("builds").address,
        version,
        timeout_s=600,
        client_message_id=f"build-{version}",
        meta={"version": version},
    )
    daemon.ack(answer)
    return answer.body or ""


def announce(daemon: Daemon, version: str, answer: str, member: str, log: str) -> None:
    """Tell the team, and share the log with the member."""
    releases = daemon.topic("releases")
    releases.subscribe()
    sent = f"live-{version}"
    releases.post(f"{version}: {answer}", mentions=[member], receipt="delivered", client_message_id=sent)
    daemon.share_file(log, member, message=f"The log of {version}", client_message_id=f"log-{version}")
    progress = daemon.outbox(sent, wait_for="delivered", wait_ms=30_000)
    logging.info("%s is announced: %s", version, progress.detail)


def follow(daemon: Daemon, version: str) -> None:
    """Answer each question once, over restarts of the daemon and of this program."""
    for message in daemon.messages(ack=True):
        if message.kind == "dm" and message.body == "status":
            daemon.reply(message, f"{version} is live", client_message_id=f"status-{message.id}")


def main() -> int:
    """Run until the program is ended."""
    logging.basicConfig(level=logging.INFO)
    version, member, log = sys.argv[1:]
    try:
        with Daemon() as daemon:
            answer = deploy(daemon, version)
            announce(daemon, version, answer, member, log)
            follow(daemon, version)
    except NoReply as error:
        logging.error("No worker has answered. %s", error)
        return 1
    except DaemonError as error:
        logging.error("%s: %s%s", error.code, error, " Try again later." if error.retryable else "")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
