"""Words for where orders, trades and cancels stand (wire): the REST and the socket spelling of each, as one; and which
state of an order holds after two were told.

Words outside the documented lists are kept and counted by whoever reads them; they never mean more than they say.
Sources: docs.polymarket.com/concepts/order-lifecycle, the AsyncAPI of the user channel, adapters' observations.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pmkit.exchanges.types import CancelResult, FillState, OrderState, OrderStatus

_ORDER_PREFIX: Final = "ORDER_STATUS_"
_TRADE_PREFIX: Final = "TRADE_STATUS_"

_ORDERS: Final = {
    "LIVE": OrderState.LIVE,
    "DELAYED": OrderState.DELAYED,
    "MATCHED": OrderState.FILLED,
    "INVALID": OrderState.REJECTED,
    "CANCELED_EXPIRED_ORDER": OrderState.EXPIRED,
}
_TRADES: Final = {
    "MATCHED": FillState.PENDING,
    "MATCHED_NOT_BROADCASTED": FillState.PENDING,
    "MINED": FillState.PENDING,
    "RETRYING": FillState.PENDING,
    "CONFIRMED": FillState.FINAL,
    "FAILED": FillState.FAILED,
}
_NOT_FOUND: Final = "order not found or already canceled"
# Final answers of a cancel: asking again changes nothing. Not so while an order waits out its taker delay.
_CANCELS: Final = {
    "already canceled or matched": CancelResult.ALREADY_DONE,
    _NOT_FOUND: CancelResult.ALREADY_DONE,
    "cannot cancel because the order is in pending/delayed status": CancelResult.NOT_YET,
}


_RANK: Final = {OrderState.DELAYED: 0, OrderState.LIVE: 1}
NOT_LISTED: Final = "no longer listed"
"""Why an order counts as over that the venue said nothing about any more. It alone can take that back."""


class StateOf(msgspec.Struct, frozen=True):
    """A status word and what it means. `state` is None for a word that is not known; `reason` says why it ended."""

    state: OrderState | None
    word: str
    reason: str = ""


def order_state(word: str, event: str = "") -> StateOf:
    """The state of an order by its status word; `event` is the user channel's PLACEMENT, UPDATE or CANCELLATION.

    Anything that begins with CANCELED is final, whatever follows: a market that resolved, a lack of balance, or the
    error text of a killed FOK. INVALID in a CANCELLATION is a cancel by the venue. UNMATCHED is not known: its delay
    failed, and it was put on the book or not.
    """
    plain = word.strip().removeprefix(_ORDER_PREFIX)
    upper = plain.upper()
    if event.upper() == "CANCELLATION" and upper == "INVALID":
        return StateOf(OrderState.CANCELED, word, "canceled by the venue")
    known = _ORDERS.get(upper)
    if known is not None:
        return StateOf(known, word, _reason(plain) if known is OrderState.EXPIRED else "")
    if upper.startswith(("CANCELED", "CANCELLED")):
        return StateOf(OrderState.CANCELED, word, _reason(plain))
    return StateOf(None, word)


def fill_state(word: str) -> FillState | None:
    """The state of a trade; None for a word that is not known, which is not final."""
    return _TRADES.get(word.strip().upper().removeprefix(_TRADE_PREFIX))


def cancel_result(reason: str) -> CancelResult | None:
    """What a reason of `not_canceled` means; None where it is not known: the cancel may be repeated."""
    return _CANCELS.get(_plain(reason))


def says_not_found(reason: str) -> bool:
    """Whether a reason of `not_canceled` may mean that the venue never had the order. Of one that may still be on its
    way that is no answer.
    """
    return _plain(reason) == _NOT_FOUND


def _plain(reason: str) -> str:
    return reason.strip().rstrip(".").lower()


def _reason(word: str) -> str:
    """CANCELED_NOT_ENOUGH_BALANCE -> not enough balance; the texts of killed orders stay as they are."""
    rest = word.partition("_")[2]
    return ascii(rest.replace("_", " ").lower() if rest.isupper() else rest)[1:-1][:200]


def forward(old: OrderStatus, new: OrderStatus) -> OrderStatus | None:
    """The state after both, None where `new` is older: a terminal order stays so, filled shares never shrink."""
    if old.status.terminal and old.reason != NOT_LISTED:
        if new.filled_amount <= old.filled_amount:
            return None
        # Shares that were matched before it ended, and are told of afterwards.
        return msgspec.structs.replace(old, filled_amount=new.filled_amount, average_price=new.average_price)
    if not new.status.terminal and (
        new.filled_amount < old.filled_amount
        or (new.filled_amount == old.filled_amount and _RANK[new.status] < _RANK.get(old.status, 0))
    ):
        return None
    return msgspec.structs.replace(
        new,
        filled_amount=max(old.filled_amount, new.filled_amount),
        created_ms=old.created_ms or new.created_ms,
        updated_ms=max(old.updated_ms, new.updated_ms),
        average_price=new.average_price if new.average_price is not None else old.average_price,
        fee=new.fee if new.fee is not None else old.fee,
        outcome=new.outcome or old.outcome,
    )
