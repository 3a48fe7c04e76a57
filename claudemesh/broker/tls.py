"""The TLS context of a broker's listener."""

from __future__ import annotations

import ssl


def server_tls(cert: str, key: str) -> ssl.SSLContext:
    """Return a context with a certificate and its key. `ValueError` says why they cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A handshake within a connection costs as much as the first, and counts as nothing.
    made.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # An encrypted key has a password that no setting holds; without one it would be asked for.
        made.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"Cannot use {cert} with {key}: {error}. Give a certificate and its key in PEM form."
        ) from error
    return made
