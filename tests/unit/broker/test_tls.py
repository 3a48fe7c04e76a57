"""The certificate and the key of a broker's listener."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from claudemesh.broker.tls import own_certificate, server_tls
from claudemesh.runtime.outward import tls_context_of
from tests.support.certificates import authority


def test_a_fault_of_the_files_names_the_file(tmp_path: Path) -> None:
    made = authority(tmp_path, "DNS:localhost")
    cert, key, missing = str(made.cert), str(made.key), str(tmp_path / "chain.pm")
    server_tls(cert, key)
    with pytest.raises(ValueError, match=r"chain\.pm: No such file"):
        server_tls(missing, key)
    with pytest.raises(ValueError, match=r"chain\.pm: No such file"):
        server_tls(cert, missing)
    with pytest.raises(ValueError, match=r"server-key\.pem holds no certificate.*exchanged"):
        server_tls(key, cert)


def test_a_fault_within_the_files_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Another key, an encrypted one and a damaged one, without the words of the TLS library."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made, other = (authority(tmp_path / name, "DNS:localhost") for name in ("one", "two"))
    locked, damaged = tmp_path / "locked.pem", tmp_path / "damaged.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", made.key, "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    damaged.write_text("\n".join(made.key.read_text().splitlines()[:2]))
    for key, told in (
        (other.key, "is not the private key of the certificate"),
        (locked, "is encrypted with a password"),
        (damaged, "is damaged"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            server_tls(str(made.cert), str(key))
        assert "_ssl.c" not in str(caught.value)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Let a client and a server greet each other in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass


def test_the_certificate_of_this_host_is_trusted_alone(tmp_path: Path) -> None:
    """Another certificate is refused, even of the same authority. Names do not count."""
    made = authority(tmp_path, "DNS:mesh.invalid")
    chain = tmp_path / "chain.pem"
    chain.write_text(made.cert.read_text() + made.ca.read_text())
    trusting = tls_context_of(own_certificate(str(chain)))
    handshake(trusting, server_tls(str(chain), str(made.key)))
    before = own_certificate(str(made.cert))
    renewed = authority(tmp_path, "DNS:mesh.invalid")
    assert own_certificate(str(renewed.cert)) != before
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(trusting, server_tls(str(renewed.cert), str(renewed.key)))
