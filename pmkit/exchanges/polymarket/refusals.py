"""Which answers to an order prove that nothing was placed (wire), and which only look like it.

An answer is proof when its status and text are in the table below; by text and status, since the venue maps texts to
statuses by words in them. Everything else (5xx, 425, a bare 429, unknown texts, unreadable bodies) leaves the outcome
unknown: the order is looked up by its hash. Source: docs.polymarket.com/resources/error-codes, newer pages of the same
site, and issue threads of the official clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from pmkit.errors import (
    InsufficientFunds,
    OrderAuthError,
    OrderRateLimited,
    OrderRegionBlocked,
    OrderRejected,
    OrderVenueUnavailable,
)

LEG: Final = 200
"""The status of a refusal inside an accepted answer: one leg of a batch, or `success: false`."""

_MAX_TEXT: Final = 2_000
_MAX_SHOWN: Final = 300


class Proof(StrEnum):
    """What an answer proves. REFUSED: nothing was placed. KILLED: taken, matched nothing, gone (IOC, FOK).
    DUPLICATE: this very order is there already. UNKNOWN: nothing either way.
    """

    REFUSED = "REFUSED"
    KILLED = "KILLED"
    DUPLICATE = "DUPLICATE"
    UNKNOWN = "UNKNOWN"


class Verdict(msgspec.Struct, frozen=True):
    """What one answer without an order id means. `reason` is the venue's own text, escaped and short.

    `retry_after`: seconds, where the answer names them.
    """

    proof: Proof
    code: str
    reason: str
    status: int = 0
    retry_after: float | None = None

    def error(self) -> OrderRejected:
        """The exception of a refusal. Raises ValueError where this is none."""
        if self.proof is not Proof.REFUSED:
            raise ValueError(f"{self.proof} is no refusal")
        return _ERRORS.get(self.code, _plain_error)(self)


def _plain_error(verdict: Verdict) -> OrderRejected:
    return OrderRejected(verdict.code, verdict.reason)


def _funds(verdict: Verdict) -> OrderRejected:
    return InsufficientFunds(verdict.reason, verdict.code)


def _auth(verdict: Verdict) -> OrderRejected:
    return OrderAuthError(verdict.reason)


def _region(verdict: Verdict) -> OrderRejected:
    return OrderRegionBlocked(verdict.reason)


def _closed(verdict: Verdict) -> OrderRejected:
    return OrderVenueUnavailable(verdict.reason, verdict.status or None, verdict.retry_after)


_ERRORS: Final[dict[str, Callable[[Verdict], OrderRejected]]] = {
    "insufficient_funds": _funds,
    "insufficient_allowance": _funds,
    "auth": _auth,
    "wallet_type": _auth,
    "region_blocked": _region,
    "edge_blocked": _region,
    "rate_limited": lambda verdict: OrderRateLimited(verdict.reason, verdict.retry_after),
    "trading_disabled": _closed,
    "cancel_only": _closed,
    "post_only_mode": _closed,
}

# (status of the single answer, text, code, what to do). Texts match as a whole, whatever their case; every one is taken
# from a leg of a batch as well, where the status is that of the batch. A variable part is bounded, so that no text with
# an unknown tail passes for a known one.
_ID: Final = r"(?:0x)?[\w-]{1,80}"
_NUMBER: Final = r"[$\d.,eE+-]{1,60}"
_PAIR: Final = r"[a-z ]{1,30}: [$\w.+-]{1,80}"
_DETAILS: Final = rf"(?: -> {_PAIR}(?:, {_PAIR}){{0,5}})?"
_REGIONS: Final = r"(?:, please refer to available regions - https?://[\w./-]{1,120})?"
_TABLE: Final[tuple[tuple[int, str, str, str], ...]] = (
    (400, r"order_version_mismatch", "version_mismatch", "update pmkit: it signs orders of another version"),
    (400, r"invalid order payload", "invalid_payload", ""),
    (400, r"the order owner has to be the owner of the api key", "auth", "the API key is of another account"),
    (
        400,
        r"the order signer address has to be the address of the api key",
        "wallet_type",
        "wrong POLYMARKET_SIGNATURE_TYPE or funder for this key, or the deposit wallet is not deployed",
    ),
    (
        400,
        r"maker address not allowed, please use the deposit wallet flow",
        "wallet_type",
        "this account trades from its deposit wallet: POLYMARKET_SIGNATURE_TYPE=3 and that wallet as funder",
    ),
    (400, rf"'?{_ID}'? address banned", "banned", ""),
    (400, rf"'?{_ID}'? (?:address )?in closed only mode", "closed_only", "positions may only be closed"),
    (
        400,
        r"invalid signature",
        "invalid_signature",
        "check POLYMARKET_SIGNATURE_TYPE, funder and the market's version",
    ),
    (
        400,
        rf"order {_ID} is invalid\. price \({_NUMBER}\) breaks minimum tick size rule: {_NUMBER}",
        "tick_size",
        "the price step changed",
    ),
    (400, rf"order {_ID} is invalid\. size \({_NUMBER}\) lower than the minimum: {_NUMBER}", "below_minimum", ""),
    (
        400,
        rf"invalid amount for a marketable buy order \({_NUMBER}\), min size: {_NUMBER}",
        "below_minimum",
        "a BUY that takes has to be worth 1 pUSD",
    ),
    (
        400,
        (
            r"invalid amounts, (?:the )?[a-z ]{0,40}maker amount supports a max accuracy of \d+ decimals,"
            r" (?:the )?taker amount a max of \d+ decimals"
        ),
        "invalid_amounts",
        "",
    ),
    (400, rf"(?:order {_ID} is invalid\. )?invalid post-only order: order crosses book", "post_only_cross", ""),
    (400, rf"order {_ID} crosses the book", "post_only_cross", ""),
    (
        400,
        rf"not enough balance / allowance(?:: the balance is not enough{_DETAILS})?",
        "insufficient_funds",
        "",
    ),
    (
        400,
        rf"not enough balance / allowance: the allowance is not enough{_DETAILS}",
        "insufficient_allowance",
        "approve the exchange's contract",
    ),
    (400, r"invalid expiration", "invalid_expiration", ""),
    (400, r"invalid nonce", "invalid_nonce", ""),
    (400, r"order canceled in the ctf exchange contract", "canceled_on_chain", ""),
    (400, r"the market is not yet ready to process new orders", "market_not_ready", "try again later"),
    (400, r"too many orders in payload: \d+, max allowed: \d+", "too_many_orders", ""),
    (400, r"payload exceeds the limit", "too_many_orders", ""),
    (
        400,
        r"invalid (?:orderid|(?:order |trade )params payload|asset type|signature_type|token id|payload|side)",
        "invalid_payload",
        "",
    ),
    (401, r"unauthorized(?:/invalid api key)?", "auth", "check the clock, then the API credentials"),
    (401, r"invalid api key", "auth", "check the clock, then the API credentials"),
    (401, r"invalid l1 request headers", "auth", "check the clock, then the private key"),
    (403, rf"trading restricted in your region{_REGIONS}", "region_blocked", "stop: it is final here"),
    (404, r"no orderbook exists for the requested token id", "market_not_found", "not listed yet, or over"),
    (404, r"market not found", "market_not_found", "not listed yet, or over"),
    (429, r"too many requests", "rate_limited", ""),
    (503, r"trading is currently disabled(?:\. check polymarket\.com for updates)?", "trading_disabled", ""),
    (503, r"trading is disabled", "trading_disabled", ""),
    (
        503,
        r"trading is currently cancel-only\. new orders are not accepted, but cancels are allowed",
        "cancel_only",
        "",
    ),
    (503, r"post-only mode: only post-only orders and cancels are allowed", "post_only_mode", "after a restart"),
    (503, r"post_only_mode", "post_only_mode", "after a restart"),
)
# A fill-or-kill that found nothing was taken and is gone: the same as an order with no fills. Older servers say the
# same with a 500.
_KILLED: Final = re.compile(
    r"order couldn't be fully filled\. fok orders are fully filled or killed"
    r"|no orders found to match with fak order\. fak orders are partially filled or killed if no match is found"
    r"|fok orders are (?:fully )?filled or killed"
).fullmatch
_DUPLICATE: Final = re.compile(rf"order {_ID} is invalid\. duplicated", re.ASCII).fullmatch
_ROWS: Final = tuple(
    (status, re.compile(text, re.ASCII).fullmatch, code, advice) for status, text, code, advice in _TABLE
)


def judge(status: int, body: bytes, retry_after: float | None = None) -> Verdict:
    """What an answer other than 2xx to POST /order (or to a whole batch) proves. Never raises.

    A refused batch refuses every order in it; KILLED and DUPLICATE are of single orders only. `retry_after`: the
    header's seconds.
    """
    content = _content(body)
    if content is None:
        if status == 403 and b"cloudflare" in body[:20_000].lower() and body.lstrip()[:1] == b"<":
            return Verdict(Proof.REFUSED, "edge_blocked", "Cloudflare turned the request away (HTML)", 403, retry_after)
        return Verdict(Proof.UNKNOWN, "unreadable", f"HTTP {status} without a readable body", status, retry_after)
    if retry_after is None:
        retry_after = _seconds(content.get("retry_after_seconds"))
    texts = [content.get(name) for name in ("error", "errorMsg", "error_msg", "message")]
    text = next((text for text in texts if isinstance(text, str) and text), "")
    found = _by_text(status, text, retry_after)
    code = content.get("code")
    if found.proof is Proof.UNKNOWN and isinstance(code, str):
        coded = _by_text(status, code, retry_after)
        return coded if coded.proof is Proof.REFUSED else found
    return found


def judge_leg(text: str) -> Verdict:
    """What the `errorMsg` of an answer without an order id proves: of one leg of a batch, or of a 200. Never raises."""
    return _by_text(LEG, text, None)


def _by_text(status: int, text: str, retry_after: float | None) -> Verdict:
    shown = _shown(text)
    plain = text.strip().rstrip(".").lower() if len(text) <= _MAX_TEXT else ""
    if status in (LEG, 400, 500) and _KILLED(plain):
        return Verdict(Proof.KILLED, "killed", shown, status, retry_after)
    if status in (LEG, 400) and _DUPLICATE(plain):
        return Verdict(Proof.DUPLICATE, "duplicate", shown, status, retry_after)
    for known, matches, code, advice in _ROWS:
        if status in (LEG, known) and matches(plain):
            reason = f"{shown} ({advice})" if advice else shown
            return Verdict(Proof.REFUSED, code, reason, status, retry_after)
    return Verdict(Proof.UNKNOWN, "unlisted", shown or f"HTTP {status} without a text", status, retry_after)


_DECODE: Final = msgspec.json.Decoder().decode


def _content(body: bytes) -> dict[str, Any] | None:
    """The JSON object of an answer; a JSON text counts as its error. None for plain text and HTML."""
    try:
        content: Any = _DECODE(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(content, str):
        return {"error": content}
    return content if isinstance(content, dict) else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e6 else None


def _shown(text: str) -> str:
    """A text from the network for messages: escaped and short."""
    shown = ascii(text.strip())[1:-1]
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."
