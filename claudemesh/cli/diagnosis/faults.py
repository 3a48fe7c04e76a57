"""Faults on the way to a broker: the code of an error, and the finding for each code."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from claudemesh.cli.diagnosis.facts import BrokerFacts
from claudemesh.cli.diagnosis.findings import Finding, failed
from claudemesh.client.errors import ClientError
from claudemesh.runtime.outward import UnusableProxy
from claudemesh.runtime.urls import is_loopback

# Codes of OpenSSL (X509_V_ERR_…).
_CERTIFICATE: Final[Mapping[int, str]] = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    18: "unknown_authority",
    19: "unknown_authority",
    20: "unknown_authority",
    21: "unknown_authority",
    62: "wrong_certificate_name",
    64: "wrong_certificate_name",
}
_NO_ROUTE: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_PLAIN_TEXT: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
_TUNNEL: Final = "Tunnel connection failed"
# Codes of `BrokerClient` that are faults by themselves.
_TOLD: Final = {"wrong_address", "redirected", "bad_answer", "invalid_broker_url"}


def is_own(url: str) -> bool:
    """Whether a broker's URL is of the loopback."""
    return is_loopback(urlsplit(url).hostname or "")


def fault_of(error: BaseException, *, by_proxy: bool) -> str:
    """Return the code of an error of `BrokerClient`, from its causes."""
    found = [_fault(cause) for cause in _chain(error)]
    code = next((one for one in reversed(found) if one is not None), "unreachable")
    if by_proxy and code in ("refused", "timed_out", "unknown_host", "no_route"):
        # The connection that failed is the one to the proxy.
        return "proxy_unreachable"
    return code


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _fault(error: BaseException) -> str | None:
    if isinstance(error, ClientError):
        return error.code if error.code in _TOLD else _answered(error)
    if isinstance(error, UnusableProxy):
        return "unusable_proxy"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(error.verify_code, "certificate_refused")
    if isinstance(error, ssl.SSLError):
        return "no_tls" if error.reason in _PLAIN_TEXT else "tls_failed"
    if isinstance(error, socket.gaierror):
        return "unknown_host"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timed_out"
    if isinstance(error, ConnectionError):
        return "closed"
    if isinstance(error, OSError):
        if error.errno in _NO_ROUTE:
            return "no_route"
        return "proxy_refused" if _TUNNEL in str(error) else None
    return None


def _answered(error: ClientError) -> str | None:
    """Return not_a_broker for an answer that no broker gives."""
    return "not_a_broker" if getattr(error, "status", None) is not None else None


def finding_of(facts: BrokerFacts) -> Finding:
    """Return the finding for a broker that has a fault."""
    assert facts.fault is not None
    make = _FINDINGS.get(facts.fault, _unreachable)
    return make(facts)


def _told(code: str, state: str, remedy: str, next: str | None = None) -> Callable[[BrokerFacts], Finding]:
    """Return the maker of a finding: `{url}`, `{proxy}` and `{host}` in its texts are filled in."""

    def make(facts: BrokerFacts) -> Finding:
        words = {"url": facts.url, "proxy": facts.proxy or "the proxy"}
        detail = f"{facts.url} {state.format(**words)}"
        if facts.detail:
            detail += f" ({facts.detail.rstrip('.')})"
        command = None if next is None else next.format(**words)
        return failed("broker", code, detail, remedy.format(**words), command)

    return make


def _refused(facts: BrokerFacts) -> Finding:
    if is_own(facts.url):
        remedy = "No broker runs on this machine at that port. Start it." + _MOVED
        return _told("refused", "refuses the connection", remedy, "claudemesh broker up -d")(facts)
    remedy = (
        "The host answers, and no broker listens at that port. See on that host whether the broker runs and "
        "listens at an address that others reach: `claudemesh broker status`." + _MOVED
    )
    return _told("refused", "refuses the connection", remedy)(facts)


def _wrong_address(facts: BrokerFacts) -> Finding:
    known = next(iter(facts.addresses), None)
    remedy = "Change the address on this host, or give the broker this one too (`broker up --public-url`)."
    command = None if known is None else f"claudemesh daemon set-broker {known}"
    return failed("broker", "wrong_address", facts.detail, remedy, command)


# A host that was away while the mesh moved dials the address before the move.
_MOVED: Final = " If the mesh has moved, ask an owner for its address: `claudemesh daemon set-broker URL`."

_unreachable = _told("unreachable", "cannot be reached", "Check the address and the network." + _MOVED)

_FINDINGS: Final[Mapping[str, Callable[[BrokerFacts], Finding]]] = {
    "refused": _refused,
    "wrong_address": _wrong_address,
    "timed_out": _told(
        "timed_out",
        "does not answer, and nothing refuses the connection",
        "A firewall drops it, or the host is off. Open the port of the broker there and on the way." + _MOVED,
    ),
    "unknown_host": _told(
        "unknown_host",
        "has a host name that cannot be resolved",
        "Check the name and the DNS of this host." + _MOVED,
    ),
    "no_route": _told(
        "no_route", "cannot be reached: there is no route", "Check the network of this host." + _MOVED
    ),
    "closed": _told(
        "closed",
        "closes the connection before it answers",
        "The port belongs to another program, or expects TLS: then the address begins with wss://.",
        "claudemesh daemon set-broker wss://HOST",
    ),
    "certificate_expired": _told(
        "certificate_expired",
        "has a certificate that is no longer valid",
        "Renew it on the host of the broker, and restart the broker; or set the clock of this host.",
        "claudemesh broker up -d --tls-cert FILE --tls-key FILE",
    ),
    "certificate_not_yet_valid": _told(
        "certificate_not_yet_valid",
        "has a certificate that is not valid yet",
        "The clock of this host is behind, or the certificate is made for later. Compare the clocks.",
        "date -u",
    ),
    "unknown_authority": _told(
        "unknown_authority",
        "has a certificate that is signed by no authority this host trusts",
        "Give that of your own authority with --ca-file. Without one, a proxy in between may have signed it.",
        "claudemesh daemon set-broker {url} --ca-file FILE",
    ),
    "wrong_certificate_name": _told(
        "wrong_certificate_name",
        "has a certificate for another name",
        "Dial the broker by the name in its certificate.",
        "claudemesh daemon set-broker wss://NAME",
    ),
    "certificate_refused": _told(
        "certificate_refused", "has a certificate that is refused", "Make another one for the broker."
    ),
    "no_tls": _told(
        "no_tls",
        "does not speak TLS",
        "Give the broker a certificate (`broker up --tls-cert`), or dial it by ws:// in a trusted network.",
    ),
    "tls_failed": _told("tls_failed", "ends the TLS handshake", "Check the TLS settings of the broker."),
    "unusable_proxy": _told(
        "unusable_proxy",
        "would be dialled by a proxy that cannot be used",
        "Correct HTTPS_PROXY or ALL_PROXY, or name the host of the broker in NO_PROXY.",
    ),
    "proxy_unreachable": _told(
        "proxy_unreachable",
        "is dialled by the proxy {proxy}, which cannot be reached",
        "Correct HTTPS_PROXY, or name the host of the broker in NO_PROXY.",
    ),
    "proxy_refused": _told(
        "proxy_refused",
        "is dialled by the proxy {proxy}, which refuses the connection",
        "Let the proxy pass connections to the broker, or name the host of the broker in NO_PROXY.",
    ),
    "not_a_broker": _told(
        "not_a_broker",
        "answers, and is no broker",
        "Check the address. A proxy in between may answer in place of the broker." + _MOVED,
    ),
    "bad_answer": _told(
        "bad_answer",
        "gives an answer that no broker of this version gives",
        "Upgrade the broker, or check the address.",
    ),
    "redirected": _told(
        "redirected",
        "answers with a redirect, which is not followed",
        "Give the broker's own address.",
        "claudemesh daemon set-broker wss://HOST",
    ),
    "invalid_broker_url": _told(
        "invalid_broker_url",
        "is no address of a broker",
        "Give one.",
        "claudemesh daemon set-broker wss://HOST",
    ),
}
FAULTS: Final = (*_FINDINGS, "unreachable")
