"""Certificates of an authority of one's own, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Authority:
    """An authority, and the chain and key of one server that it has signed."""

    ca: Path
    cert: Path
    key: Path


def authority(folder: Path, *names: str) -> Authority:
    """Make an authority in a folder, and a certificate of it for names such as `DNS:mesh.test`."""
    ca, ca_key = folder / "ca.pem", folder / "ca-key.pem"
    cert, key, request, extensions = (
        folder / name for name in ("server.pem", "server-key.pem", "server.csr", "server.ext")
    )
    _run("req", "-x509", *_CURVE, "-days", "2", "-subj", "/CN=Our CA", "-keyout", ca_key, "-out", ca)
    _run("req", *_CURVE, "-subj", "/CN=broker", "-keyout", key, "-out", request)
    extensions.write_text(f"subjectAltName={','.join(names)}\nbasicConstraints=CA:FALSE\n")
    signing = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
    _run("x509", "-req", "-in", request, *signing, "-out", cert)
    return Authority(ca, cert, key)


def _run(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
