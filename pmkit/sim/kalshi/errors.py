"""Error bodies (reference: kalshi.md, sections 2.4 and 5.15): an object under `error`, for 429 a plain text."""

from __future__ import annotations

import msgspec

from pmkit.sim.server import Refused

_WORDS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 500: "internal_server_error"}


def refuse(status: int, code: str, details: str = "", message: str | None = None) -> Refused:
    """An error to be raised. Without a message the code is repeated in words."""
    inner = {"code": code, "message": code.replace("_", " ") if message is None else message}
    if details:
        inner["details"] = details
    return Refused(status, msgspec.json.encode({"error": inner}).decode())


def unauthorized(code: str, details: str) -> Refused:
    """A 401 as seen: the code again as the message."""
    return refuse(401, code, details, code)


def too_many() -> Refused:
    """A 429 as seen, without `Retry-After`."""
    return Refused(429, '{"error":"too many requests"}')


def error_body(status: int, text: str) -> object:
    """What `Server` makes of the text of an error: ours is JSON already."""
    if text.startswith("{"):
        return msgspec.Raw(text.encode())
    code = _WORDS.get(status, "error")
    return {"error": {"code": code, "message": code.replace("_", " "), "details": text}}
