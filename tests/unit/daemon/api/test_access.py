"""Access checks as decisions: head of a request in, refusal or None out (docs/spec/daemon.md, Access)."""

from __future__ import annotations

import pytest

from claudemesh.daemon.api.access import AccessRules, Denial, judge
from claudemesh.runtime.web.routes import MAX_BODY

OPEN = AccessRules()
TOKEN = b"k3y-of-32-bytes"
ORIGIN = b"https://board.example"
TRUSTING = AccessRules(allowed_origins=frozenset({ORIGIN}))
BEARING = AccessRules(tokens=(TOKEN,))

JSON = (b"content-type", b"application/json")


def verdict(
    *headers: tuple[bytes, bytes], method: str = "GET", query: bytes = b"", rules: AccessRules = OPEN
) -> str:
    """The code and status of the refusal, `pass` without one."""
    found = judge(method, headers, query, rules)
    return "pass" if found is None else f"{found.error.status} {found.error.code}"


def body(*headers: tuple[bytes, bytes], length: bytes = b"2") -> str:
    return verdict((b"content-length", length), *headers, method="POST")


@pytest.mark.parametrize(
    "host",
    [b"", b"localhost", b"LocalHost", b"localhost:7901", b"127.0.0.1", b"127.0.0.1:1", b"[::1]", b"[::1]:80"],
)
def test_a_local_name_may_ask(host: bytes) -> None:
    """Host is localhost, 127.0.0.1 or [::1] with any port, or empty."""
    assert verdict((b"host", host)) == "pass"


def test_a_request_without_a_host_may_ask() -> None:
    """A header that is not there is not judged."""
    assert verdict() == "pass"


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.",
        b"127.0.0.1.nip.io",
        b"0.0.0.0",
        b"0.0.0.0:7901",
        b"127.1",
        b"127.0.0.2",
        b"2130706433",
        b"[::ffff:127.0.0.1]",
        b"::1",
        b"localhost:p@evil",
        b"localhost:80@evil",
        b"localhost:+5",
        b"localhost:123456",
        b"localhost.evil.example",
        b"user@localhost",
        b"localhost,evil",
        b"localhost evil",
        "localhost:\N{ARABIC-INDIC DIGIT FIVE}".encode(),
        b"\xff",
    ],
)
def test_any_other_name_is_refused(host: bytes) -> None:
    """DNS rebinding: another Host is 403, for any address that it resolves to."""
    assert verdict((b"host", host)) == "403 host_not_allowed"


def test_two_hosts_are_refused_even_when_both_are_local() -> None:
    """It would be open which of them is checked."""
    assert verdict((b"host", b"localhost"), (b"host", b"localhost")) == "403 host_not_allowed"


@pytest.mark.parametrize(
    "origin", [b"null", b"http://localhost", b"http://localhost:7901", b"", ORIGIN + b".evil"]
)
def test_any_origin_that_is_not_allowed_is_refused(origin: bytes) -> None:
    """No page may ask, a page of this very machine included."""
    assert verdict((b"origin", origin)) == "403 origin_not_allowed"
    assert verdict((b"origin", origin), rules=TRUSTING) == "403 origin_not_allowed"


def test_an_allowed_origin_may_ask() -> None:
    """[ipc] allowed_origins opens the door for exactly these."""
    assert verdict((b"origin", ORIGIN), rules=TRUSTING) == "pass"
    assert verdict((b"origin", ORIGIN), (b"sec-fetch-site", b"cross-site"), rules=TRUSTING) == "pass"
    assert (
        verdict((b"referer", ORIGIN + b"/page"), (b"sec-fetch-site", b"cross-site"), rules=TRUSTING) == "pass"
    )


@pytest.mark.parametrize(
    "header",
    [
        (b"referer", b"https://evil.example/page"),
        (b"referer", b""),
        (b"referer", b"http://[broken"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"same-site"),
    ],
)
def test_what_a_browser_says_of_a_foreign_page_is_refused(header: tuple[bytes, bytes]) -> None:
    """A page that sends no Origin still gives itself away."""
    assert verdict(header) == "403 origin_not_allowed"


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_a_user_who_types_the_address_may_ask(site: bytes) -> None:
    """Not every browser request is some page's."""
    assert verdict((b"sec-fetch-site", site)) == "pass"


def test_a_preflight_is_refused() -> None:
    """No cross-origin request is ever agreed to."""
    assert verdict(method="OPTIONS") == "403 preflight_refused"
    assert verdict((b"origin", ORIGIN), method="OPTIONS", rules=TRUSTING) == "403 preflight_refused"


@pytest.mark.parametrize(
    "query", [b"token=x", b"a=1&token=x", b"Token=x", b"%74oken=x", b"tok%65n", b"a=1;token=x"]
)
def test_a_token_in_the_query_is_refused_and_a_security_event(query: bytes) -> None:
    """In any spelling; the event is a reason to rotate the token."""
    found = judge("GET", [], query, BEARING)
    assert isinstance(found, Denial)
    assert (found.error.status, found.error.code, found.security) == (400, "token_in_query", True)


@pytest.mark.parametrize("query", [b"", b"tokens=1", b"a=token", b"since=1"])
def test_another_parameter_is_no_token(query: bytes) -> None:
    """Only the name counts."""
    assert verdict(query=query) == "pass"


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Bearer " + TOKEN + b"x",
        b"Bearer " + TOKEN[:-1],
        b"Basic " + TOKEN,
        TOKEN,
        b"Bearer \xff\xfe",
        b"Bearer " + b"a" * 8192,
        b"Bearer " + TOKEN + b" ",
    ],
)
def test_a_wrong_bearer_is_unauthenticated(authorization: bytes) -> None:
    """Over TCP every route needs the token; what is not it is 401, never 500."""
    assert verdict((b"authorization", authorization), rules=BEARING) == "401 unauthenticated"


def test_the_bearer_opens_the_door() -> None:
    """The scheme's case does not matter, the token's does."""
    assert verdict((b"authorization", b"Bearer " + TOKEN), rules=BEARING) == "pass"
    assert verdict((b"authorization", b"bearer " + TOKEN), rules=BEARING) == "pass"
    assert verdict((b"authorization", b"Bearer " + TOKEN.upper()), rules=BEARING) == "401 unauthenticated"
    assert verdict(rules=BEARING) == "401 unauthenticated"


def test_two_authorizations_are_refused() -> None:
    """One of them right is not enough."""
    pair = ((b"authorization", b"Bearer " + TOKEN), (b"authorization", b"Bearer x"))
    assert verdict(*pair, rules=BEARING) == "400 duplicate_header"


def test_host_and_origin_are_judged_before_the_bearer() -> None:
    """A stranger learns nothing about tokens."""
    assert verdict((b"host", b"evil"), rules=BEARING) == "403 host_not_allowed"
    assert verdict((b"origin", b"null"), rules=BEARING) == "403 origin_not_allowed"


def test_without_a_token_no_bearer_is_looked_at() -> None:
    """The socket's mode is its door."""
    assert verdict((b"authorization", b"Bearer whatever")) == "pass"


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b'application/json; charset="utf-8"',
    ],
)
def test_json_is_taken(content_type: bytes) -> None:
    """application/json, with or without the charset that it has anyway."""
    assert body((b"content-type", content_type)) == "pass"


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"text/plain",
        b"text/plain; application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/json; charset=utf-16",
        b"application/json; charset=utf-8; charset=utf-16",
        b"application/jsonp",
        b"application/json,text/plain",
        b"\xff",
    ],
)
def test_any_other_type_is_unsupported(content_type: bytes) -> None:
    """A content type that a form can send without a preflight is not JSON."""
    assert body((b"content-type", content_type)) == "415 unsupported_media_type"


def test_a_body_without_a_type_is_unsupported() -> None:
    """A page may send a blob without one."""
    assert body() == "415 unsupported_media_type"
    assert verdict((b"transfer-encoding", b"chunked"), method="POST") == "415 unsupported_media_type"
    assert verdict((b"content-length", b"2"), method="GET") == "415 unsupported_media_type"


def test_no_body_needs_no_type() -> None:
    """An operator's curl -X POST is fine."""
    assert verdict(method="POST") == "pass"
    assert body(length=b"0") == "pass"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"identity, gzip"])
def test_a_compressed_body_is_unsupported(coding: bytes) -> None:
    """Nothing is ever unpacked, so nothing can explode."""
    assert body(JSON, (b"content-encoding", coding)) == "415 unsupported_media_type"


def test_a_large_body_is_refused_by_its_head() -> None:
    """1 MiB goes, one byte more is 413 before a byte is read."""
    assert body(JSON, length=str(MAX_BODY).encode()) == "pass"
    assert body(JSON, length=str(MAX_BODY + 1).encode()) == "413 payload_too_large"
    assert body(JSON, length=b"9" * 18) == "413 payload_too_large"


@pytest.mark.parametrize("length", [b"", b"+5", b"-1", b"1_0", b"0x10", b"5 5", b"9" * 19, "٥".encode()])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    """Only ASCII digits, and few of them."""
    assert body(JSON, length=length) == "400 invalid_content_length"


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity", b"chunked, chunked", b"xchunked", b""])
def test_chunked_is_the_only_transfer_coding(coding: bytes) -> None:
    """Nothing that two readers could take for different bodies."""
    assert verdict(JSON, (b"transfer-encoding", coding), method="POST") == "400 invalid_transfer_encoding"
    assert verdict(JSON, (b"transfer-encoding", b"Chunked"), method="POST") == "pass"


def test_a_length_and_chunks_together_are_refused() -> None:
    """Request smuggling's classic."""
    assert body(JSON, (b"transfer-encoding", b"chunked")) == "400 invalid_transfer_encoding"


@pytest.mark.parametrize("name", [b"content-type", b"content-length", b"origin", b"transfer-encoding"])
def test_a_header_that_decides_may_come_once(name: bytes) -> None:
    """Two readers of one request must not see two requests."""
    assert verdict((name, b"1"), (name, b"1"), method="POST") == "400 duplicate_header"


CONSOLE = AccessRules(
    tokens=(TOKEN,),
    browser_paths=frozenset({"/", "/v1/console/session"}),
    is_session=lambda cookies, key: (cookies, key) == (b"c", b"k"),
)
HOST = (b"host", b"127.0.0.1:7901")
BOTH = ((b"cookie", b"c"), (b"x-claudemesh-console", b"k"))


def console(*headers: tuple[bytes, bytes], path: str = "/v1/inbox", method: str = "GET") -> str:
    found = judge(method, (HOST, *headers), b"", CONSOLE, path)
    return "pass" if found is None else f"{found.error.status} {found.error.code}"


def test_a_session_of_a_browser_is_as_good_as_the_token() -> None:
    own = (b"origin", b"http://127.0.0.1:7901")
    assert console(*BOTH) == "pass"
    assert console(*BOTH, own, JSON, (b"content-length", b"2"), method="POST") == "pass"
    assert console(*BOTH, (b"referer", b"http://127.0.0.1:7901/")) == "pass"


@pytest.mark.parametrize("headers", [(), BOTH[:1], BOTH[1:], ((b"cookie", b"x"), BOTH[1])])
def test_a_browser_without_a_whole_session_gets_the_page_alone(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    assert console(*headers) == "401 unauthenticated"
    assert console(*headers, path="/") == "pass"


@pytest.mark.parametrize(
    "header",
    [
        (b"origin", b"http://127.0.0.1:7902"),
        (b"origin", b"http://localhost:7901"),
        (b"origin", b"https://127.0.0.1:7901"),
        (b"origin", b"null"),
        (b"referer", b"http://127.0.0.1:7902/"),
        (b"sec-fetch-site", b"same-site"),
        (b"sec-fetch-site", b"cross-site"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/inbox", "/v1/console/session"])
def test_a_page_of_another_port_is_refused_with_a_session_too(header: tuple[bytes, bytes], path: str) -> None:
    """The browser sends it the cookie, because ports do not separate cookies."""
    assert console(*BOTH, header, path=path) == "403 origin_not_allowed"


def test_a_listener_without_the_console_knows_no_session() -> None:
    assert verdict(*BOTH, rules=BEARING) == "401 unauthenticated"
