"""The bodies of refusals: the venue's own JSON, and what the hosts before it and the file storage say."""

from __future__ import annotations

from xml.sax.saxutils import escape

import msgspec

from pmkit.sim.server import Refused

# Documented codes and texts (SPOT/errors.md), and the 451 as captured.
_USUAL: dict[int, tuple[int, str]] = {
    418: (-1003, "Way too much request weight used; IP banned. Please use WebSocket Streams to avoid bans."),
    429: (-1003, "Too many requests; please use WebSocket Streams for live updates to avoid polling the API."),
    451: (
        0,
        (
            "Service unavailable from a restricted location according to 'b. Eligibility' in "
            "https://www.binance.com/en/terms. Please contact customer service if you believe you received this "
            "message in error."
        ),
    ),
    500: (-1000, "An unknown error occurred while processing the request."),
    503: (-1008, "Server is currently overloaded with other requests. Please try again in a few minutes."),
    504: (
        -1007,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    ),
}
_TITLES = {403: "Forbidden", 502: "Bad Gateway"}
_STORAGE = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


def refuse(status: int, code: int, msg: str, headers: dict[str, str] | None = None) -> Refused:
    """An error in the form of the venue, to be raised."""
    return Refused(status, msgspec.json.encode({"code": code, "msg": msg}).decode(), headers)


def error_body(status: int, text: str) -> object:
    """What `Server` makes of the text of an error: ours is JSON already."""
    if text.startswith("{"):
        return msgspec.Raw(text.encode())
    return {"code": -1000, "msg": text}


def api_refusal(status: int, code: int | None = None, msg: str | None = None) -> tuple[bytes, str]:
    """Body and content type over REST. 403 (the firewall) and 502 (a proxy) are pages unless a code is given."""
    if code is None and status in _TITLES:
        title = f"{status} {_TITLES[status]}"
        return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode(), "text/html"
    usual = _USUAL.get(status, _USUAL[500])
    body = {"code": usual[0] if code is None else code, "msg": usual[1] if msg is None else msg}
    return msgspec.json.encode(body), "application/json"


def storage_refusal(status: int, code: int | None = None, msg: str | None = None) -> tuple[bytes, str]:
    """Body and content type of the file storage."""
    text = escape(msg or f"The storage answers {status}.")
    name = _STORAGE.get(status, "InternalError" if status >= 500 else "InvalidRequest")
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{name}</Code><Message>{text}</Message></Error>'
    return xml.encode(), "application/xml"
