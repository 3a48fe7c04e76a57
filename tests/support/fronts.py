"""nginx and Caddy in front of a port, with the files of docs/deploy, whose names and ports are changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.processes import REPOSITORY, until

DEPLOY = REPOSITORY / "docs/deploy"
KINDS = ("nginx", "caddy")


def missing(kind: str) -> str | None:
    """Return the reason for which this machine has no such proxy, None when it has."""
    if shutil.which(kind, path=_PATH) is None:
        return f"the program {kind} is not installed (Debian: apt-get install {kind})"
    return None


@contextmanager
def front(kind: str, port: int, behind: int, signed: Authority) -> Generator[None]:
    """Run a proxy that ends TLS for localhost on `port`, in front of the port `behind`."""
    folder = Path(tempfile.mkdtemp(prefix="cm-front-"))
    command = (_nginx if kind == "nginx" else _caddy)(folder, port, behind, signed)
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **home, "PATH": _PATH}, stdout=out, stderr=out, cwd=folder
        )
    try:
        until(lambda: _answers(port, process, folder / "out"), f"{kind} is ready")
        yield
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _nginx(folder: Path, port: int, behind: int, signed: Authority) -> list[str]:
    site = _changed(
        DEPLOY / "nginx.conf",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "mesh.example.org;": "localhost;",
            "/etc/ssl/mesh.example.org/chain.pem": str(signed.cert),
            "/etc/ssl/mesh.example.org/key.pem": str(signed.key),
            "server 127.0.0.1:7900": f"server 127.0.0.1:{behind}",
        },
    )
    user = "user root;" if os.geteuid() == 0 else ""
    main = f"{user} pid {folder}/pid; error_log {folder}/error.log; events {{}}"
    (folder / "nginx.conf").write_text(f"{main}\nhttp {{ access_log off;\n{site}\n}}\n")
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]


def _caddy(folder: Path, port: int, behind: int, signed: Authority) -> list[str]:
    site = _changed(
        DEPLOY / "Caddyfile",
        {
            "mesh.example.org {": f"https://localhost:{port} {{",
            "# tls /etc/ssl/mesh.example.org/chain.pem /etc/ssl/mesh.example.org/key.pem": (
                f"tls {signed.cert} {signed.key}"
            ),
            "reverse_proxy 127.0.0.1:7900": f"reverse_proxy 127.0.0.1:{behind}",
        },
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def _changed(path: Path, changes: Mapping[str, str]) -> str:
    text = path.read_text()
    for old, new in changes.items():
        assert old in text, (path, old)
        text = text.replace(old, new)
    return text


def _answers(port: int, process: subprocess.Popen[bytes], out: Path) -> bool:
    assert process.poll() is None, out.read_text()
    with socket.create_connection(("127.0.0.1", port)):
        return True
