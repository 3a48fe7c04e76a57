"""The certificate and the key of a broker's listener."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.broker.tls import server_tls
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
