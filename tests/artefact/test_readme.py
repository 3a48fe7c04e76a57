"""The README's commands, as a new user copies them: empty homes, the pyz, nothing else."""

from __future__ import annotations

import os
import re

from tests.support.hosts import Host
from tests.support.processes import REPOSITORY, until

_COMMENT = re.compile(r"\s{2,}#.*$", re.MULTILINE)


def blocks(section: str, language: str) -> list[str]:
    """The code of one section, without the comments behind it."""
    text = (REPOSITORY / "README.md").read_text()
    found = re.search(rf"^## {section}$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    return [_COMMENT.sub("", code) for code in re.findall(rf"```{language}\n(.*?)```", found[1], re.DOTALL)]


def test_the_first_ten_minutes(hosts: tuple[Host, Host]) -> None:
    """Every command of `Use it` and `From a program`, in their order."""
    one, two = hosts
    first, second, third = blocks("Use it", "sh")
    # The differences are a port of this test's own, by a variable, and a function that runs the archive.
    link = re.search(r"claudemesh://join/\S+", one.run(first))
    assert link is not None
    two.run(second.replace("claudemesh://join/…", link[0]))

    def arrived() -> str:
        shown = one.run(third)
        return shown if "hello everybody" in shown else ""

    shown = until(arrived, "what was sent is shown")
    assert "the build is green" in shown
    assert "a longer text" in shown
    (request,) = blocks("From a program", "sh")
    assert '"client_message_id":"deploy-42"' in one.run(request)
    (program,) = blocks("From a program", "python")
    # The example listens for ever; the test ends it after the first message.
    program += "    break\n"
    assert one.python(program) == ""
    # The first hook, as docs/hooks.md has it; in CI hooks are off unless the user says otherwise.
    hook = re.search(r"```sh\n(.*?)```", (REPOSITORY / "docs/hooks.md").read_text(), re.DOTALL)
    assert hook is not None
    one.run("printf '[hooks]\\nenabled = true\\n' >>~/.claudemesh/daemon/team/config.toml\n" + hook[1])
    assert two.run("claudemesh request alice 'are you there?' --timeout 30s") == "got it\n"


def test_the_commands_of_the_first_page_exist() -> None:
    """Each script that the README names is there and may be run."""
    for block in blocks("Try it", "sh"):
        for line in block.splitlines():
            script = REPOSITORY / line.split()[0]
            assert os.access(script, os.X_OK), script
