"""Rows of the inbox."""

from __future__ import annotations

from typing import Any

import pytest

from claudemesh.cli.inbox_view import text_in_list

FILE = {"file_id": "1", "name": "build.log", "size": 5}


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ({"body": "", "attachments": [FILE]}, "[file: build.log]"),
        ({"body": "see", "attachments": [FILE, {**FILE, "name": "b"}]}, "see [file: build.log, b]"),
        ({"body": "text", "attachments": []}, "text"),
        ({"body": "text"}, "text"),
    ],
)
def test_a_message_with_files_names_them_in_a_list(item: dict[str, Any], shown: str) -> None:
    """A file that was shared without a text is no empty line."""
    assert text_in_list(item) == shown
