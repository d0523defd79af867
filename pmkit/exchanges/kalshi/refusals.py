"""What an answer to an order proves (wire): placed, refused, a duplicate, a stale time stamp, or nothing.

Only a status together with Kalshi's own body proves a refusal; the codes are those of the documents and of recorded
answers. 5xx, 408, 425, a 429 in other words, a code that is not listed, a page of some proxy: the outcome is unknown
and is looked up. A reply without an order id is never an acceptance, whatever its status.

Bodies come as {"error": {"code", "message", "details"}}, as {"code", ...} and, for 429, as {"error": "text"}. Codes are
compared in lower case with underscores, so that the names of FIX ("POST_ONLY_CROSS") and of the socket match as well.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

from pmkit.errors import (
    InsufficientFunds,
    OrderAuthError,
    OrderClockSkew,
    OrderRateLimited,
    OrderRegionBlocked,
    OrderRejected,
    OrderVenueUnavailable,
)

MAX_REASON: Final = 300
TOO_MANY: Final = "too many requests"
STALE_STAMP: Final = "header_timestamp_expired"


class VenueError(msgspec.Struct, frozen=True):
    """Kalshi's error object; `service` is gone since 2026-08-06."""

    code: str = ""
    message: str = ""
    details: str = ""

    @property
    def text(self) -> str:
        """Code, message and details for a message: escaped, without repeats, cut."""
        parts = dict.fromkeys(part for part in (self.code, self.message, self.details) if part)
        return "".join(letter if letter.isprintable() else " " for letter in ": ".join(parts))[:MAX_REASON]


class Proof(Enum):
    """What an answer proves about an order."""

    PLACED = "placed"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    STALE_STAMP = "stale_stamp"
    UNKNOWN = "unknown"


class Verdict(msgspec.Struct, frozen=True):
    """REFUSED and STALE_STAMP come with the error to raise; DUPLICATE and UNKNOWN are looked up; `reason` is text.

    STALE_STAMP: not placed; sign anew and send once more with the same client order id, then raise `error`.
    """

    proof: Proof
    reason: str
    error: OrderRejected | None = None


_FUNDS: Final = frozenset({"insufficient_balance", "available_balance_too_low", "insufficient_funds", "user_not_found"})
_PAUSED: Final = frozenset(
    {"trading_is_paused", "trading_paused", "exchange_is_paused", "exchange_paused", "exchange_not_active"}
)
_CLOSED: Final = frozenset({"market_inactive", "market_already_closed", "market_closed", "market_not_active"})
_POST_ONLY: Final = frozenset({"post_only_cross"})
_FOK: Final = frozenset({"fok_insufficient_volume", "fill_or_kill_insufficient_resting_volume"})
_GONE: Final = frozenset({"deprecated_v1_order_endpoint"})
_NAMES: Final = """
    invalid_price invalid_order_size invalid_order invalid_parameters market_not_found not_found
    order_id_and_client_order_id_mismatch order_side_mismatch order_ticker_mismatch
    exceeded_order_group_risk_limit exceeded_per_market_risk_limit exceeded_sell_position_floor order_group_not_found
    self_cross_attempt cannot_update_filled_order invalid_amend_qty_for_order
"""
_NAMED: Final = frozenset(_NAMES.split())
"""Refusals that keep Kalshi's own code. Not here, since such an order was taken and may have fills:
SELF_CROSS_ATTEMPT_PARTIALLY_FILLED, the cancels for self-trade prevention, and EXCHANGE_UNAVAILABLE."""

_REFUSING: Final = frozenset({400, 403, 404, 409, 410, 422})
_BLANKS = re.compile(r"[^a-z0-9]+")


class _Body(msgspec.Struct, frozen=True):
    error: VenueError | str | None = None
    code: str = ""
    message: str = ""
    details: str = ""


_decode = msgspec.json.Decoder(_Body).decode


def venue_error(body: bytes) -> VenueError | None:
    """The error in an answer, None where the body is not one of Kalshi's. Never raises."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if isinstance(found.error, VenueError):
        return found.error if found.error != VenueError() else None
    if isinstance(found.error, str):
        return VenueError(message=found.error) if found.error else None
    return VenueError(found.code, found.message, found.details) if found.code else None


def refusal(status: int, body: bytes) -> Verdict:
    """The verdict on an answer that holds no order id (see `order_replies.created` for those that may).

    `status` is the HTTP status. Never PLACED.
    """
    error = venue_error(body)
    if error is None:
        return Verdict(Proof.UNKNOWN, f"{status} without a body of Kalshi's")
    names = _names(error)
    reason = f"{status} {error.text}"
    if status == 429:
        if error.message.strip().lower() == TOO_MANY or "too_many_requests" in names:
            return Verdict(Proof.REFUSED, reason, OrderRateLimited(reason))
        return Verdict(Proof.UNKNOWN, reason)
    if status == 401:
        return _unsigned(names, reason, error)
    listed = listed_refusal(error, reason)
    if status == 409:
        # A pause or a closed market may come as 409 as well; everything else on 409 is the client order id.
        if listed is not None and listed.code not in _NAMED:
            return Verdict(Proof.REFUSED, reason, listed)
        return Verdict(Proof.DUPLICATE, reason)
    # 2xx: the body of a refusal was seen with the status of a success.
    if listed is not None and (status in _REFUSING or 200 <= status < 300):
        return Verdict(Proof.REFUSED, reason, listed)
    if status == 403 and error.code:
        return Verdict(Proof.REFUSED, reason, _forbidden(names, reason))
    if status == 410 and error.code:
        return Verdict(Proof.REFUSED, reason, _changed(reason))
    return Verdict(Proof.UNKNOWN, reason)


def leg_refusal(error: VenueError) -> Verdict:
    """The verdict on one leg of a batch that came back with an error of its own instead of an order id."""
    names, reason = _names(error), error.text or "an error without text"
    if names & {"duplicate", "order_already_exists", "client_order_id_already_exists", "duplicate_client_order_id"}:
        return Verdict(Proof.DUPLICATE, reason)
    listed = listed_refusal(error, reason)
    return Verdict(Proof.UNKNOWN, reason) if listed is None else Verdict(Proof.REFUSED, reason, listed)


def listed_refusal(error: VenueError, reason: str) -> OrderRejected | None:
    """The error to raise for a code of the table, None for one that is not in it."""
    names = _names(error)
    if names & _POST_ONLY:
        return OrderRejected("post_only_cross", reason)
    if names & _FOK:
        return OrderRejected("fok_not_filled", reason)
    if names & _FUNDS:
        return InsufficientFunds(f"{reason}: look at the balance on this market's shard, not at the sum of all")
    if names & _PAUSED:
        return OrderVenueUnavailable(reason)
    if names & _CLOSED:
        return OrderRejected("market_closed", reason)
    if names & _GONE:
        return _changed(reason)
    code = _name(error.code)
    return OrderRejected(code, reason) if code in _NAMED else None


def stale_stamp(status: int, body: bytes) -> bool:
    """Whether any signed request was refused for its time stamp: it was not carried out and may be signed anew."""
    return status == 401 and (error := venue_error(body)) is not None and STALE_STAMP in _names(error)


def unknown_key(error: VenueError) -> str:
    """What to look at after a 401. The same answer comes for many mistakes; its details tell some of them apart."""
    if "incorrect_api_key_signature" in error.text.lower():
        return (
            "the private key is not the one of this key id (KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH must be of "
            "one key), or the key was deleted"
        )
    return (
        "check that the key id belongs to the private key, that it was not deleted, and that both are of this "
        "environment: keys of demo are not known in production, nor the other way round"
    )


def _unsigned(names: set[str], reason: str, error: VenueError) -> Verdict:
    if STALE_STAMP in names:
        stale = OrderClockSkew(f"{reason}: this machine's clock is off by more than Kalshi tolerates")
        return Verdict(Proof.STALE_STAMP, reason, stale)
    return Verdict(Proof.REFUSED, reason, OrderAuthError(f"{reason}: {unknown_key(error)}"))


def _forbidden(names: set[str], reason: str) -> OrderRejected:
    if any("region" in name or "location" in name or "jurisdiction" in name for name in names):
        return OrderRegionBlocked(reason)
    return OrderAuthError(f"{reason}: check the key's scopes (write::trade) and its sub-account")


def _changed(reason: str) -> OrderRejected:
    return OrderRejected("protocol_changed", f"{reason}: Kalshi has retired this call: update pmkit")


def _name(text: str) -> str:
    return _BLANKS.sub("_", text.lower()).strip("_")


def _names(error: VenueError) -> set[str]:
    """Code, message and details as names. "post only cross" was seen in details, under the code invalid_order."""
    return {_name(error.code), _name(error.message), _name(error.details)} - {""}
