"""The programs in docs/examples, each run as a reader runs it: the archive, a mesh, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.hosts import Host
from tests.support.processes import REPOSITORY, until
from tests.support.pyz import PYZ

_EXAMPLES = REPOSITORY / "docs/examples"


@pytest.fixture
def team(hosts: tuple[Host, Host]) -> tuple[Host, Host, str]:
    """Alice's host with a broker and a daemon, bob's beside it in the same mesh, and an invite."""
    one, two = hosts
    one.run("claudemesh broker up -d\nclaudemesh mesh create team --name alice\nclaudemesh daemon up -d")
    invite = r"claudemesh://join/\S+"
    links = [re.search(invite, one.run("claudemesh invite create")) for _ in range(2)]
    assert links[0] is not None
    assert links[1] is not None
    two.run(f"claudemesh join '{links[0][0]}' --name bob\nclaudemesh daemon up -d")
    return one, two, links[1][0]


def script(name: str) -> str:
    """The call of an example, with `claudemesh` on its PATH."""
    link = f'mkdir -p "$HOME/bin" && ln -sf "{PYZ}" "$HOME/bin/claudemesh"'
    return f'{link}\nPATH="$HOME/bin:$PATH" {_EXAMPLES / name}'


def bodies(host: Host) -> list[str]:
    """The texts in a host's inbox, oldest first."""
    shown = json.loads(host.run("claudemesh inbox --json"))
    return [item["body"] for item in shown["items"]]


def test_the_curl_example_sends_one_message_however_often_it_runs(team: tuple[Host, Host, str]) -> None:
    """A quote and a newline in the text arrive as they are."""
    one, two, _ = team
    text = 'a "quoted"\nline'
    call = f"{script('send.sh')} bob '{text}' once-1"
    first = json.loads(one.run(call))
    again = json.loads(one.run(call))
    assert first["client_message_id"] == again["client_message_id"] == "once-1"
    assert until(lambda: bodies(two), "the message arrives") == [text]


def test_the_ci_job_tells_its_result_and_leaves_nothing_running(team: tuple[Host, Host, str]) -> None:
    """The script ends when the broker has the message."""
    one, two, link = team
    shown = two.run(
        f"export CLAUDEMESH_INVITE='{link}'\n{script('ci-job.sh')} alice 'the build is green' build-42"
    )
    assert "build-42" in shown
    assert until(lambda: bodies(one), "the message arrives") == ["the build is green"]


def test_the_hook_answers_the_one_question_that_it_knows(team: tuple[Host, Host, str]) -> None:
    """Another text gets no answer."""
    one, two, _ = team
    one.run(
        "cd ~/.claudemesh/daemon/team && mkdir -m 700 -p hooks\n"
        f"cp {_EXAMPLES / 'on-dm'} hooks/ && chmod 700 hooks/on-dm\n"
        "printf '[on-dm]\\nallow_reply = true\\n' >hooks/hooks.toml\n"
        "printf '[hooks]\\nenabled = true\\n' >>config.toml && claudemesh daemon reload"
    )
    two.run("claudemesh send alice 'another text'")
    assert "load average" in two.run("claudemesh request alice uptime --timeout 60s")
    assert len(bodies(two)) == 1


def test_the_worker_answers_each_order_once(team: tuple[Host, Host, str]) -> None:
    """An order that was begun and not finished is answered after the worker has come back."""
    one, two, _ = team
    two.run("claudemesh topic create queue:builds && claudemesh topic subscribe queue:builds")
    one.run("claudemesh send queue:builds 'v1'")
    program = Path(two.home / "worker.py")
    program.write_text((_EXAMPLES / "worker.py").read_text().replace("from claudemesh", "from sdk"))
    (two.home / "sdk.py").write_text((REPOSITORY / "claudemesh/sdk.py").read_text())
    for answers in (["built 'v1'"], ["built 'v1'", "built 'v2'"]):
        with subprocess.Popen([sys.executable, str(program)], cwd=two.home, env=two.environment) as worker:
            try:
                until(partial(lambda wanted: bodies(one) == wanted, answers), "the order is answered")
            finally:
                worker.kill()
        one.run("claudemesh send queue:builds 'v2'")
    assert bodies(one) == ["built 'v1'", "built 'v2'"]
