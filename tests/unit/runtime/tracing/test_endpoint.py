from __future__ import annotations

import pytest

from claudemesh.runtime.tracing.endpoint import check_endpoint


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4318", "https://collector.example/otlp/", "http://[::1]:4318"]
)
def test_the_url_of_a_collector_is_taken(url: str) -> None:
    """By http:// or https://, with a path or without."""
    check_endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:4318",
        "grpc://h:4317",
        "http://",
        "http://h:99999",
        "http://u:p@h",
        "http://h/?a",
        "http://h/ a",
    ],
)
def test_another_text_is_refused(url: str) -> None:
    """A user or password would be shown with the settings."""
    with pytest.raises(ValueError):
        check_endpoint(url)
