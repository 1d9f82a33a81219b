"""HTTP as downloads need it: offline refusal, redirects that drop tokens, and errors sorted into retry and give up."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from lab.core.problem import problem

AGENT = "lab/1 (+stdlib)"
BROKEN = (OSError, http.client.HTTPException, ssl.SSLError, ValueError)
"""What a connection raises when it drops, stalls or talks nonsense."""


class Transient(Exception):
    """It may work when tried again; `after` says in how many seconds the server wants to be asked."""

    def __init__(self, text: str, after: float = 0) -> None:
        super().__init__(text)
        self.after = after


class Refused(Exception):
    """The server answered with an error that trying again does not mend."""

    def __init__(self, code: int, url: str, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {code} from {url}")
        self.code, self.url, self.headers, self.body = code, url, headers, body


def count(text: str) -> int | None:
    """A number of bytes or seconds as a header says it; None where it is none, or none that could be. Pure."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def loopback(url: str) -> bool:
    """Whether a URL leads to this machine. Pure."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allow(url: str, offline: bool) -> None:
    """Raises where the URL may not be asked: not http(s), a password in it, a machine's own settings, or offline."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise problem("an address cannot be read", do="check who names it") from None
    if parts.scheme not in ("http", "https"):
        raise problem(f"{shown(url)} cannot be fetched", why="only http, https and file are", do="name another source")
    if "@" in parts.netloc:
        raise problem(f"the address {shown(url)} holds a user or password", do="name it without, and declare `token:`")
    if _inward(parts.hostname or ""):
        raise problem(
            f"{parts.hostname} is not asked", why="no files are kept at such an address", do="check who names it"
        )
    if offline and not loopback(url):
        raise problem(
            f"offline: {urllib.parse.urlsplit(url).hostname} is not asked",
            why="`offline: true` refuses every connection but loopback",
            do="set `offline: false`, or declare a `path:` that is here",
        )


def _inward(host: str) -> bool:
    """Whether a host is one that only tells a machine about itself: clouds keep credentials there. Pure."""
    if host.rstrip(".") in ("metadata.google.internal", "metadata"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_link_local or found.is_multicast or host in ("fd00:ec2::254", "100.100.100.200")


def same(url: str, other: str) -> bool:
    """Whether two URLs lead to the same server. Pure."""
    return urllib.parse.urlsplit(url)[:2] == urllib.parse.urlsplit(other)[:2]


def shown(url: str) -> str:
    """The URL without what may be secret: user, password, query. Pure."""
    try:
        u = urllib.parse.urlsplit(url)
    except ValueError:
        return "an address"
    return urllib.parse.urlunsplit((u.scheme, u.netloc.rpartition("@")[2], u.path, "", ""))


_PLAIN = ("User-agent", "Accept", "Accept-encoding", "Range", "If-range")
"""Headers that another host is sent as well; what else was sent may be a key."""


class Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects; another host is told no token, and nobody leads from outside to this machine."""

    def __init__(self, offline: bool) -> None:
        self.offline = offline

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allow(newurl, self.offline)
        if loopback(newurl) and not loopback(req.full_url):
            raise problem(f"{shown(req.full_url)} leads to this machine", do="check the address")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and not same(newurl, req.full_url):
            new.headers = {k: v for k, v in new.headers.items() if k in _PLAIN}
        return new


def open_(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    offline: bool,
    timeout: float = 30,
    method: str = "GET",
    data: bytes | None = None,
) -> http.client.HTTPResponse:
    """The response to a request, its body unread. Raises Transient, Refused, or Problems where it may not be asked."""
    allow(url, offline)
    request = urllib.request.Request(
        urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]"),
        headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})},
        method=method,
        data=data,
    )
    proxies = urllib.request.ProxyHandler({} if loopback(url) else None)
    opener = urllib.request.build_opener(proxies, Redirect(offline))
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as e:
        with e:
            if e.code in (408, 425, 429) or e.code >= 500:
                wait = e.headers.get("Retry-After", "")
                raise Transient(f"HTTP {e.code}", min(count(wait) or 0, 60)) from e
            try:
                body = e.read(4096)
            except BROKEN:
                body = b""
            raise Refused(e.code, url, dict(e.headers), body) from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, ssl.SSLCertVerificationError):
            raise problem(
                f"{urllib.parse.urlsplit(url).hostname} shows a certificate that is not trusted",
                why=e.reason.verify_message,
                do="check the address, or set SSL_CERT_FILE to your network's certificates",
            ) from e
        raise Transient(str(e.reason)) from e
    except BROKEN as e:
        raise Transient(str(e) or type(e).__name__) from e


def body(url: str, headers: Mapping[str, str] | None = None, *, offline: bool, limit: int = 64 << 20) -> bytes:
    """A whole small answer, three times tried. Raises Refused, or Problems."""
    return answer(url, headers, offline=offline, limit=limit)[0]


def answer(
    url: str, headers: Mapping[str, str] | None = None, *, offline: bool, limit: int = 64 << 20, tries: int = 4
) -> tuple[bytes, Mapping[str, str]]:
    """A whole small answer and its headers (names in lower case). Raises Refused, or Problems."""
    import time

    why = ""
    for attempt in range(tries):
        try:
            with open_(url, headers, offline=offline) as response:
                data = _whole(response, limit + 1)
                length = count(response.headers.get("Content-Length", ""))
                if len(data) > limit:
                    raise problem(f"{shown(url)} answers with more than {limit:,} bytes", do="check the address")
                if length is not None and len(data) < length:
                    raise Transient(f"the answer ended after {len(data)} of {length} bytes")
                return data, {k.lower(): v for k, v in response.headers.items()}
        except Transient as e:
            why, after = str(e), e.after
        except BROKEN as e:
            why, after = str(e) or type(e).__name__, 0
        if attempt + 1 < tries:
            time.sleep(after or 0.2 * 2**attempt)
    raise unreachable(url, why)


def _whole(response: http.client.HTTPResponse, limit: int) -> bytes:
    """What comes, up to a limit; Transient from a server that sends almost nothing."""
    import time

    data, mark, since = bytearray(), 0, time.monotonic()
    while len(data) < limit and (more := response.read1(limit - len(data))):
        data += more
        if (now := time.monotonic()) - since > 20:
            if len(data) - mark < 1024:
                raise Transient("the server sends almost nothing")
            mark, since = len(data), now
    return bytes(data)


def unreachable(url: str, why: str) -> Exception:
    """The problem that a server cannot be reached."""
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    return problem(f"{host} cannot be reached", why=f"{shown(url)}: {why}", do="check the network, then apply again")


def json_(url: str, headers: Mapping[str, str] | None = None, *, offline: bool) -> tuple[Any, Mapping[str, str]]:
    """A JSON answer and its headers. Raises Refused, or Problems where it is no JSON."""
    data, found = answer(url, headers, offline=offline)
    try:
        return json.loads(data), found
    except (ValueError, RecursionError) as e:
        raise problem(f"{shown(url)} does not answer with JSON", do="check the endpoint's address") from e
