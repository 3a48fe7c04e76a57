"""The TLS context of a broker's listener."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_CERT = re.compile(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def server_tls(cert: str, key: str) -> ssl.SSLContext:
    """Return a context with a certificate and its key. `ValueError` says why they cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A handshake within a connection costs as much as the first, and counts as nothing.
    made.options |= ssl.OP_NO_RENEGOTIATION
    for file, text, what in ((cert, _read(cert), "certificate"), (key, _read(key), "private key")):
        wanted, wrong = (_CERT, _KEY) if what == "certificate" else (_KEY, _CERT)
        if not wanted.search(text) and wrong.search(text):
            raise ValueError(
                f"{file} holds no {what}. Check whether the certificate and the key are exchanged."
            )
    try:
        # An encrypted key has a password that no setting holds; without one it would be asked for.
        made.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"Cannot use {cert} with {key}: {error}. Give a certificate and its key in PEM form."
        ) from error
    return made


def _read(file: str) -> bytes:
    """Return the bytes of a file. `ValueError` names the one that cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {file}: {error.strerror}. Give a file in PEM form.") from error
