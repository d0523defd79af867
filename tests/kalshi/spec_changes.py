"""How the exchange of today differs from its files of 2026-08-22, one by one, by name.

Nothing else is allowed. Each entry changes the file, so that what is new is checked as well; a test shows that each is
needed. Sources: the reference page, by section.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
WHOLE = {"type": "integer"}
SETTLED = {"type": "string", "enum": ["unsettled", "settled", "all"]}
SHARD = {"type": "integer", "minimum": 0, "maximum": 3}


@dataclass(frozen=True)
class Change:
    """One difference: its name, where it stands in the reference, and what it does to a file."""

    name: str
    source: str
    apply: Callable[[Document], object]


def _schema(document: Document, name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def _field(schema: str, name: str, shape: Document) -> Callable[[Document], object]:
    return lambda document: _schema(document, schema)["properties"].update({name: shape})


def _dropped(schema: str, name: str) -> Callable[[Document], object]:
    return lambda document: _schema(document, schema)["required"].remove(name)


def _parameter(path: str, method: str, name: str, shape: Document) -> Callable[[Document], object]:
    return lambda document: (
        document["paths"][path][method]
        .setdefault("parameters", [])
        .append({"name": name, "in": "query", "schema": shape})
    )


def _message(payload: str, name: str, shape: Document) -> Callable[[Document], object]:
    """A field of the `msg` of a socket message."""
    return lambda document: _schema(document, payload)["properties"]["msg"]["properties"].update({name: shape})


def _cancel_all(document: Document) -> None:
    document["paths"]["/portfolio/events/orders"]["delete"] = {
        "parameters": [{"name": "subaccount", "in": "query", "schema": WHOLE}],
        "responses": {"204": {"description": "all resting orders are cancelled"}},
        "security": [{"kalshiAccessKey": [], "kalshiAccessSignature": [], "kalshiAccessTimestamp": []}],
    }


def _wrapped_errors(document: Document) -> None:
    _schema(document, "ErrorResponse")["required"] = ["code", "message"]
    wrapped = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"$ref": "#/components/schemas/ErrorResponse"}},
    }
    for response in document["components"]["responses"].values():
        response["content"]["application/json"]["schema"] = wrapped


def _error_text(document: Document) -> None:
    document["components"]["responses"]["RateLimitError"]["content"]["application/json"]["schema"] = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string", "enum": ["too many requests"]}},
    }


def _status(code: int, response: str, *operations: tuple[str, str]) -> Callable[[Document], object]:
    """A refusal that these operations (all where none is named) may give as well."""

    def apply(document: Document) -> None:
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if not operations or (method, path) in operations:
                    operation["responses"].setdefault(str(code), {"$ref": f"#/components/responses/{response}"})

    return apply


def _told(document: Document) -> None:
    """Refusals that the file describes in words only have the body that all others have."""
    for item in document["paths"].values():
        for operation in item.values():
            for code, response in operation["responses"].items():
                if int(code) >= 400 and "content" not in response and "$ref" not in response:
                    operation["responses"][code] = {"$ref": "#/components/responses/InternalServerError"}


def _public_books(document: Document) -> None:
    for path in ("/markets/{ticker}/orderbook", "/markets/orderbooks"):
        del document["paths"][path]["get"]["security"]


def _writes(document: Document) -> None:
    for item in document["paths"].values():
        for method, operation in item.items():
            if method != "get":
                operation["responses"].setdefault("503", {"$ref": "#/components/responses/InternalServerError"})


def _envelopes(document: Document) -> None:
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Payload") and "Command" not in name and "properties" in schema:
            schema["properties"]["sending_ts_ms"] = WHOLE


def _scoped_errors(document: Document) -> None:
    _schema(document, "errorResponsePayload")["properties"].update(sid=WHOLE, seq=WHOLE)


def _numbered(payload: str) -> Callable[[Document], object]:
    return _field(payload, "seq", WHOLE)


REST = (
    Change("cancel-all", "1.4, 2026-08-27; 5.4", _cancel_all),
    Change(
        "amend takes expiration_time", "1.4, 2026-10-01; 5.6", _field("AmendOrderV2Request", "expiration_time", WHOLE)
    ),
    Change(
        "positions take settlement_status",
        "1.4, 2026-10-01; 5.9",
        _parameter("/portfolio/positions", "get", "settlement_status", SETTLED),
    ),
    Change("series have categories", "1.4, 2026-09-17; 3.2", _field("Series", "categories", TEXTS)),
    Change("settlement_bounds_type", "1.4, 2026-10-01", _field("Market", "settlement_bounds_type", TEXT)),
    Change("no available_on_brokers", "1.4, 2026-09-10", _dropped("EventData", "available_on_brokers")),
    Change("errors are wrapped in an object", "5.15", _wrapped_errors),
    Change("a 429 is a text", "7.4", _error_text),
    Change("every refusal has a body", "2.4, 5.15", _told),
    Change("books without a key", "3", _public_books),
    Change("429 on every path", "7.1", _status(429, "RateLimitError")),
    Change("401 on every path", "2.4", _status(401, "UnauthorizedError")),
    Change("403 for a missing scope", "2.4", _status(403, "ForbiddenError")),
    Change("503 on a write", "5.3", _writes),
    Change(
        "404 on create",
        "5.15: no such market or group on that shard",
        _status(404, "NotFoundError", ("post", "/portfolio/events/orders")),
    ),
    Change("400 on every path", "5.15", _status(400, "BadRequestError")),
    Change("404 of a series", "5.15", _status(404, "NotFoundError", ("get", "/series/{series_ticker}"))),
)

SOCKET = (
    Change("sending_ts_ms", "1.4, 2026-10-01; 6.2", _envelopes),
    Change("errors of a subscription carry sid and seq", "6.4, 6.7", _scoped_errors),
    Change("trade is numbered", "6.3", _numbered("tradePayload")),
    Change("lifecycle is numbered", "6.3", _numbered("marketLifecycleV2Payload")),
    Change("event_lifecycle is numbered", "6.3", _numbered("eventLifecyclePayload")),
    Change("exchange_index on user_order", "1.4, 2026-08-27", _message("userOrderPayload", "exchange_index", SHARD)),
    Change(
        "last_update_reason on user_order", "1.4, 2026-10-01", _message("userOrderPayload", "last_update_reason", TEXT)
    ),
)


def changed(document: Document, changes: tuple[Change, ...], *, without: str = "") -> Document:
    """The file with these changes made in it, but for one."""
    for change in changes:
        if change.name != without:
            change.apply(document)
    return document
