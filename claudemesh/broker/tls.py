"""The TLS context of a broker's listener."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_CERT = re.compile(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


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
    except ssl.SSLError as error:
        raise ValueError(_refusal(cert, key, error)) from error
    return made


def own_certificate(cert: str) -> str:
    """Return the certificate of the server itself (PEM): the first one of a chain."""
    text = _read(cert).decode("ascii", "replace")
    start, end = (text.find(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    return f"{text[start:end]}-----END CERTIFICATE-----\n" if 0 <= start < end else ""


def _refusal(cert: str, key: str, error: ssl.SSLError) -> str:
    """Return a sentence for a certificate and a key that the TLS library refuses, and the remedy."""
    reason = str(error.reason or "").replace("_", " ").lower()
    if reason == "key values mismatch":
        return f"{key} is not the private key of the certificate in {cert}. Give the key that belongs to it."
    if _ENCRYPTED.search(_read(key)):
        return (
            f"{key} is encrypted with a password, and a broker has none. Decrypt it "
            f"(`openssl pkey -in {key} -out KEY`), and keep the result readable by the broker's user alone."
        )
    if reason:
        return f"The TLS library refuses {cert} with {key} ({reason}). Have another certificate made."
    return f"{cert} or {key} is damaged: a part of it is not in PEM form. Copy both from their source again."


def _read(file: str) -> bytes:
    """Return the bytes of a file. `ValueError` names the one that cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {file}: {error.strerror}. Give a file in PEM form.") from error
