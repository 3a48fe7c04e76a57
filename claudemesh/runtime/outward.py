"""Ways to a broker on another machine: the authorities that its certificate needs, and the proxy in between.

`SSL_CERT_FILE` and `SSL_CERT_DIR` replace the authorities of the system; the TLS library reads them.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from claudemesh.runtime.urls import host_port, is_loopback

_HTTPS_PORT = 443
_PROXY_PORT = 80
# Codes of OpenSSL (X509_V_ERR_…) for a certificate that no trusted authority has signed.
_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
_OTHER_NAME = {62, 64}


class UnusableProxy(OSError):
    """The proxy of the environment is of no use for a broker. The text does not repeat it: it may hold a
    password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels (CONNECT)."""

    host: str
    port: int
    user: str | None
    password: str

    @property
    def shown(self) -> str:
        """The proxy without user and password."""
        return host_port(self.host, self.port)

    @property
    def url(self) -> str:
        """The proxy with user and password, for the WebSocket library."""
        pair = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"http://{pair}{self.shown}"

    @property
    def headers(self) -> dict[str, str]:
        """The header that signs in at the proxy."""
        if self.user is None:
            return {}
        pair = f"{self.user}:{self.password}".encode()
        return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy of the environment for a broker's URL, None for a direct connection.

    `HTTPS_PROXY`, else `ALL_PROXY`, applies to wss:// and https://, and `NO_PROXY` names exceptions. ws://
    and the loopback are dialled directly: they are for trusted networks and for this machine.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("wss", "https") or is_loopback(host):
        return None
    # Imported here: most commands dial no other machine.
    from urllib.request import getproxies, proxy_bypass

    found = getproxies()
    chosen = found.get("https") or found.get("all")
    if not chosen or proxy_bypass(host) or proxy_bypass(host_port(host, parts.port or _HTTPS_PORT)):
        return None
    return _parsed(chosen)


def by_proxy(url: str) -> str:
    """Return words for the proxy on the way to a broker, "" for a direct connection."""
    try:
        proxy = proxy_for(url)
    except UnusableProxy:
        return ""
    return "" if proxy is None else f" by the proxy {proxy.shown}"


def _parsed(text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _PROXY_PORT
    except ValueError as error:
        raise _unusable("is malformed") from error
    if parts.scheme != "http":
        raise _unusable(f"has the scheme {parts.scheme}, and only http:// is possible")
    if not parts.hostname:
        raise _unusable("names no host")
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(parts.hostname, port, user, unquote(parts.password or ""))


def _unusable(reason: str) -> UnusableProxy:
    return UnusableProxy(f"the proxy in HTTPS_PROXY or ALL_PROXY {reason}: correct it, or set NO_PROXY")


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the settings of TLS for a client.

    The certificates of `ca_file` are trusted besides the authorities of the system, where the file exists: of
    authorities, or of brokers themselves. `OSError` for a file that cannot be read or holds no certificate.
    """
    made = ssl.create_default_context()
    if ca_file is not None and ca_file.exists():
        # A certificate that no other one in the file has signed may be trusted too.
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        made.load_verify_locations(ca_file)
    return made


def tls_context_of(certificate: str) -> ssl.SSLContext:
    """Return the settings of TLS for a client that trusts one certificate (PEM) and no other.

    It may be made out to any name: only the server has its key.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.load_verify_locations(cadata=certificate)
    return made


def read_authorities(path: Path) -> bytes:
    """Return a file of certificates (PEM). `ValueError` has a sentence for one that cannot be used."""
    try:
        text = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text.decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise ValueError(f"{path} holds no certificate in PEM form.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    return text


def is_of_unknown_authority(error: BaseException) -> bool:
    """Whether a certificate was refused because this host knows no authority that has signed it."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNKNOWN_AUTHORITY


def certificate_trouble(error: BaseException) -> str | None:
    """Return why a broker's certificate was refused, and the remedy; None for other errors."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    if is_of_unknown_authority(error):
        return (
            "its certificate is signed by no authority that this host trusts. For an authority of your own, "
            "give its certificate with --ca-file (`join`, `mesh create`, the commands of `broker`, and "
            "`daemon set-broker` for a mesh of this host), or in SSL_CERT_FILE"
        )
    if error.verify_code in _OTHER_NAME:
        return (
            f"its certificate is made out to another name ({error.verify_message.rstrip('.')}). Dial the "
            "broker by the name in its certificate"
        )
    return f"its certificate was refused: {error.verify_message}"
