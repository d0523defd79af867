"""Why a connection failed or ended, in words that may be logged, and what follows from it. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.frames import Close

from pmkit.errors import ConfigError
from pmkit.logging.text import escape

EXCERPT_CHARS = 200
REFUSING_STATUSES = (401, 403, 451)
WAITING_STATUSES = (418, 429)
REFUSING_CODES = frozenset({1008, 3000, 3003})
"""Policy violation (RFC 6455), unauthorized, forbidden (IANA's registry of close codes). A feed may add its venue's."""
TOO_BIG = 1009
_REFUSING_WORDS = re.compile(r"\b(unauthori[sz]ed|unauthenticated|forbidden|auth\w* (failed|required|expired))\b", re.I)
_MAX_RETRY_AFTER_SECONDS = 1e7
_SHORTEST_SECRET = 8
_STATUSES = frozenset(int(status) for status in HTTPStatus)


def printable(foreign: object, limit: int = EXCERPT_CHARS) -> str:
    """Text from the network, fit for a log line: at most `limit` characters, control and bidi characters escaped."""
    text = foreign[: 4 * limit].decode("utf-8", "replace") if isinstance(foreign, bytes) else str(foreign)
    return escape(text[:limit]) + ("..." if len(foreign if isinstance(foreign, bytes) else text) > limit else "")


@dataclass(frozen=True, slots=True)
class Failure:
    """What happened. `blocked`: trying again soon cannot help. `retry_after`: the venue's own wait, wall seconds."""

    reason: str
    blocked: bool = False
    retry_after: float | None = None


def of_handshake(error: Exception, secrets: Iterable[str] = ()) -> Failure:
    """A connection that did not come up. `secrets` (what was sent) are struck from an answer's body."""
    if isinstance(error, InvalidStatus):
        return _of_status(error, secrets)
    if isinstance(error, ConfigError):
        return Failure(str(error), blocked=True)
    if isinstance(error, ImportError):
        # The only optional import on this path is the library's SOCKS client.
        return Failure(
            "a SOCKS proxy is set in the environment (ALL_PROXY and the like) and python-socks is not installed: "
            "unset it, or install python-socks",
            blocked=True,
        )
    if isinstance(error, InvalidURI):
        return Failure("the address is not a ws:// or wss:// URL", blocked=True)
    if isinstance(error, InvalidProxy):  # its text holds the proxy's password
        return Failure("the proxy in the environment (ALL_PROXY, HTTPS_PROXY and the like) is not usable", blocked=True)
    if isinstance(error, TimeoutError):
        return Failure("no handshake in time")
    if isinstance(error, ssl.SSLError):
        return Failure(f"TLS failed: {printable(error.reason or type(error).__name__)}: {printable(error)}")
    if isinstance(error, OSError):
        return Failure(f"no connection: {printable(error)}")
    if isinstance(error, InvalidHandshake):
        cause = f" ({printable(error.__cause__)})" if error.__cause__ else ""
        return Failure(f"the handshake failed: {printable(error)}{cause}")
    return Failure(f"the handshake failed: {type(error).__name__}")


def _of_status(error: InvalidStatus, secrets: Iterable[str]) -> Failure:
    response = error.response
    status = response.status_code
    body = (response.body or b"").decode("utf-8", "replace")
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            body = body.replace(secret, "***")
    words = HTTPStatus(status).phrase if status in _STATUSES else ""
    reason = " ".join(part for part in (f"HTTP {status}", words, printable(body.strip())) if part)
    if 300 <= status < 400:
        return Failure(f"{reason} (redirects are not followed: credentials would travel along)", blocked=True)
    if status in WAITING_STATUSES:
        return Failure(reason, retry_after=_seconds(response.headers.get("Retry-After")))
    return Failure(reason, blocked=status in REFUSING_STATUSES)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < _MAX_RETRY_AFTER_SECONDS else None


def of_close(error: ConnectionClosed, refusing: Collection[int] = REFUSING_CODES) -> Failure:
    """A connection that ended. Every code leads to a reconnect; `refusing` codes and 1009 of our own go to the cap."""
    received, sent = error.rcvd, error.sent
    if received is not None and (sent is None or error.rcvd_then_sent):
        blocked = received.code in refusing or bool(_REFUSING_WORDS.search(received.reason))
        return Failure(f"closed by the venue: {_close(received)}", blocked=blocked)
    if sent is not None and sent.code == TOO_BIG:
        return Failure(f"a frame was larger than this client takes: {_close(sent)}", blocked=True)
    if sent is not None:
        return Failure(f"closed here: {_close(sent)}")
    cause = error.__cause__
    return Failure(f"the connection broke: {printable(cause) if cause else 'no close frame'}")


def _close(frame: Close) -> str:
    return f"{frame.code} {printable(frame.reason)}".rstrip()
