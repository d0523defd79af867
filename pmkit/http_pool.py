"""httpx behind `HttpSession`: making its client, and sending through its pool of connections."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from pmkit.endpoints import is_loopback
from pmkit.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    import httpx

Params = Mapping[str, str | int] | Sequence[tuple[str, str | int]]

KEPT_URLS = 256
_LOG = logging.getLogger("pmkit.http")


@functools.cache
def _tls(trust_env: bool) -> ssl.SSLContext:
    """What httpx makes for every session. Loading the certificates takes tens of milliseconds: once is enough."""
    import httpx

    return httpx.create_ssl_context(trust_env=trust_env)


@functools.cache
def _tell_proxy(url: str) -> None:
    """Say once where the environment sends what goes to that host: a proxy that somebody set for something else is on
    the way of every order. It sees which host is asked, and neither keys nor orders, which are inside TLS.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = getproxies_environment()
    proxy = found.get(parts.scheme) or found.get("all")
    if proxy and not proxy_bypass(host):
        way = urlsplit(proxy)
        _LOG.warning(
            "requests to %s go through the proxy %s of the environment (HTTPS_PROXY, ALL_PROXY); NO_PROXY=%s ends that",
            *(host, f"{way.hostname}:{way.port}" if way.port else way.hostname, host),
        )


def open_client(
    base_url: str, host: str, *, timeout: float, connect_timeout: float, max_connections: int
) -> httpx.AsyncClient:
    """Loopback goes through no proxy. Raises ConfigError where the proxies of the environment cannot be used."""
    import httpx

    from pmkit.http_cookies import Cookies

    local = is_loopback(base_url)
    try:
        if not local:
            _tell_proxy(base_url)
        client = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(timeout, connect=connect_timeout, pool=connect_timeout),
            limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=30.0),
            follow_redirects=False,
            verify=_tls(not local),
            trust_env=not local,
            headers={"user-agent": "pmkit"},
        )
        client._cookies = Cookies()
        return client
    except (ImportError, ValueError) as error:
        if local:
            raise
        # Without the cause: the address of a proxy may hold its password.
        raise ConfigError(
            f"no session to {host}: the proxy variables of the environment (ALL_PROXY, HTTPS_PROXY, "
            f"HTTP_PROXY) cannot be used ({type(error).__name__}): unset them, or install httpx[socks] for a "
            "SOCKS proxy"
        ) from None


def build(
    client: httpx.AsyncClient,
    urls: dict[tuple[str, str], httpx.URL],
    method: str,
    path: str,
    params: Params | None,
    body: bytes | None,
    headers: Mapping[str, str] | None,
) -> httpx.Request:
    """`client.build_request`, byte for byte, without what it does anew at every request: parsing the address (three
    times) and copying headers (four times). Addresses are kept in `urls`.
    """
    import httpx

    given = () if params is None else tuple(params.items() if isinstance(params, Mapping) else params)
    key = (path, repr(given))  # 1 and True are the same to a tuple, and not in an address
    url = urls.get(key)
    if url is None:
        base = client.base_url
        url = base.copy_with(raw_path=base.raw_path + httpx.URL(path).raw_path.lstrip(b"/"))
        if params is not None:
            url = httpx.URL(url, params=list(given))
        if len(urls) >= KEPT_URLS:
            urls.pop(next(iter(urls)))
        urls[key] = url
    raw, names = client.headers.raw, set[bytes]()
    if headers:
        sent = httpx.Headers(headers).raw
        names = {name.lower() for name, _ in sent}
        raw = [pair for pair in raw if pair[0].lower() not in names] + sent
    first = [] if b"host" in names else [(b"Host", url.netloc)]
    if not names & {b"content-length", b"transfer-encoding"}:
        if body:
            raw.append((b"Content-Length", b"%d" % len(body)))
        elif method in ("POST", "PUT", "PATCH"):
            first.append((b"Content-Length", b"0"))
    request = httpx.Request(
        method,
        url,
        headers=first + raw,
        stream=httpx.ByteStream(body or b""),
        extensions={"timeout": client.timeout.as_dict()},
    )
    request.read()
    if client.cookies:
        client.cookies.set_cookie_header(request)
    return request


async def send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send once; the body is still to be read."""
    try:
        return await client.send(request, stream=True)
    except BaseException:
        # httpcore 1.0 keeps a connection whose request was cancelled before its first byte, connected or not yet: it
        # belongs to nobody, never becomes free and counts for ever. A few of them, and every order is a PoolTimeout.
        for transport in (client._transport, *client._mounts.values()):
            pool: Any = getattr(transport, "_pool", None)
            if pool is not None:
                in_use = {id(waiting.connection) for waiting in pool._requests}
                lost = [one for one in pool._connections if id(one) not in in_use]
                lost = [one for one in lost if not (one.is_idle() or one.is_closed())]
                for one in lost:
                    pool._connections.remove(one)
                await pool._close_connections([*lost, *pool._assign_requests_to_connections()])
        raise
