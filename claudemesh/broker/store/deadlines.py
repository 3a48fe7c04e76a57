"""Deadlines of a broker's database."""

from __future__ import annotations

from msgspec import Struct


class DatabaseDeadlines(Struct, frozen=True):
    """Seconds after which a wait for Postgres ends."""

    connect_s: float = 5.0  # connecting, and each step of the checks at the start
    acquire_s: float = 10.0  # for a free connection
    lock_s: float = 2.0  # for a lock; the server then refuses the statement
    statement_s: float = 10.0  # one statement; the server then cancels it
    # One use of a connection. It is longer than the server's bound of a statement: past it the server or the
    # way to it is gone, because a server that is only slow would have cancelled the statement.
    use_s: float = 12.0
    idle_s: float = 10.0  # a transaction without a statement; the server then ends the session
    ping_s: float = 5.0  # between two questions on the session that listens
    close_s: float = 5.0  # closing a connection; what still runs on it is then cut off


DEADLINES = DatabaseDeadlines()
