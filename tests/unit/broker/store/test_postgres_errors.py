"""Classes of Postgres errors: transient, the fault of the message, or fatal."""

from __future__ import annotations

import ssl

import asyncpg
import pytest

from claudemesh.broker.store.postgres.errors import TRANSIENT, translate_errors, translated
from claudemesh.runtime.errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StorageUnreachable,
)


def of_state(state: str) -> asyncpg.PostgresError:
    """The error that the library makes of a server's report."""
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": "a message", "S": "ERROR"})
    return error


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("40001", StorageUnavailable),  # serialization failure, after the last attempt
        ("40P01", StorageUnavailable),  # deadlock
        ("40003", StorageUnavailable),  # completion unknown
        ("55P03", StorageUnavailable),  # lock timeout
        ("57014", StorageUnavailable),  # statement timeout, or cancelled by an operator
        ("57P01", StorageUnreachable),  # the server stops
        ("57P03", StorageUnreachable),  # the server starts
        ("53300", StorageUnreachable),  # too many connections
        ("53100", StorageFull),
        ("58030", StorageUnavailable),  # the server's disk failed it
        ("08006", StorageUnreachable),
        ("28P01", StorageUnreachable),  # the password was changed
        ("42501", StorageUnavailable),  # rights were taken away
        ("42P01", StorageUnavailable),  # a table is missing: a restore is under way, or a script
        ("25006", StorageUnavailable),  # it has become a standby
        ("XX001", StorageCorrupt),
        ("XX002", StorageCorrupt),
        ("23505", None),
        ("22P02", None),
        ("P0001", None),
        ("XX000", None),
    ],
)
def test_a_state_means_one_thing(state: str, meaning: type[StorageError] | None) -> None:
    """A state about the moment is transient; a state about the statement is the fault of the message."""
    found = translated(of_state(state))
    assert (type(found) if found is not None else None) is meaning


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        FileNotFoundError(),
        ssl.SSLError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InternalClientError("unexpected"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_the_server_s_word_the_outcome_is_unknown(error: Exception) -> None:
    """For any exception of the library."""
    assert isinstance(translated(error), StorageUnavailable)


@pytest.mark.parametrize("error", [asyncpg.DataError("no such value"), ValueError(), KeyError()])
def test_a_mistake_of_ours_is_not_the_database_s(error: Exception) -> None:
    """It passes as it is."""
    with pytest.raises(type(error)) as caught, translate_errors():
        raise error
    assert caught.value is error


def test_the_cause_is_kept() -> None:
    """For the log."""
    cause = of_state("57P01")
    with pytest.raises(StorageUnavailable) as caught, translate_errors():
        raise cause
    assert caught.value.__cause__ is cause


def test_what_is_tried_again_was_rolled_back_whole() -> None:
    """No state in which a commit may have happened."""
    assert frozenset({"40001", "40P01", "55P03"}) == TRANSIENT


def test_a_detail_that_quotes_a_row_is_not_repeated() -> None:
    """It may hold a body."""
    error = asyncpg.PostgresError.new(
        {"C": "53400", "M": "no", "D": "Failing row contains (a body)", "S": "ERROR"}
    )
    assert "a body" in str(error)
    assert "a body" not in str(translated(error))
