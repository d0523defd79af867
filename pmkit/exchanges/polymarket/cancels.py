"""Cancels: on connections and tokens of their own, so that no order holds them back. A cancel may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pmkit.errors import (
    AuthError,
    CancelUnknown,
    InvalidOrder,
    NotSent,
    PmkitError,
    RateLimited,
    RegionBlocked,
)
from pmkit.exchanges.polymarket.answers import CancelAnswer, read_canceled
from pmkit.exchanges.polymarket.credentials import Login
from pmkit.exchanges.polymarket.limits import TradingLimits
from pmkit.exchanges.polymarket.orders import MAX_CANCELS, cancel_body, cancel_many_body, cancel_market_body
from pmkit.exchanges.polymarket.signed_http import SignedSession
from pmkit.exchanges.types import CancelResult, Order
from pmkit.http import HttpAnswer

CANCEL_ONE = "/order"
CANCEL_MANY = "/orders"
CANCEL_MARKET = "/cancel-market-orders"


class Cancels:
    """`on_canceled(order_id)` hears of every order that the venue says it cancelled, `on_done()` of one that was over
    already. `unplaced(order_id)`: whether it is not known yet that the venue ever had that order.
    """

    def __init__(
        self,
        http: SignedSession,
        login: Login,
        limits: TradingLimits,
        *,
        on_canceled: Callable[[str], object],
        on_done: Callable[[], object],
        unplaced: Callable[[str], bool],
    ) -> None:
        self._http = http
        self._login = login
        self._limits = limits
        self._on_canceled = on_canceled
        self._on_done = on_done
        self._unplaced = unplaced

    async def one(self, order_id: str) -> CancelResult:
        """DELETE /order. Raises CancelUnknown, NotSent, RateLimited, AuthError, RegionBlocked, InvalidOrder."""
        await self._login.ready()
        body = cancel_body(order_id)
        await self._limits.cancel()
        answer = await self._delete(CANCEL_ONE, body, order_id)
        found = self._result(order_id, answer)
        if isinstance(found, CancelResult):
            return found
        raise found

    async def many(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        """DELETE /orders, in pieces that the limits allow; a result or an error per id."""
        await self._login.ready()
        results: dict[str, CancelResult | PmkitError] = {}
        wanted = list(dict.fromkeys(order_ids))
        step = max(1, min(MAX_CANCELS, self._limits.cancel_burst))
        for first in range(0, len(wanted), step):
            piece = wanted[first : first + step]
            try:
                body = cancel_many_body(piece)
                await self._limits.cancel(len(piece))
                answer = await self._delete(CANCEL_MANY, body, f"{len(piece)} orders")
            except CancelUnknown as error:
                results.update({order_id: CancelUnknown(order_id, error.reason) for order_id in piece})
            except PmkitError as error:
                results.update(dict.fromkeys(piece, error))
            else:
                results.update({order_id: self._result(order_id, answer) for order_id in piece})
        return results

    async def market(self, condition_id: str, token_id: str | None = None) -> dict[str, CancelResult | PmkitError]:
        """DELETE /cancel-market-orders: every order of the account in it. Raises as `one`."""
        await self._login.ready()
        body = cancel_market_body(condition_id, token_id)  # never without a market: that would cancel everything
        await self._limits.cancel()
        answer = await self._delete(CANCEL_MARKET, body, f"all orders of {condition_id}")
        self._limits.spend_cancels(len(answer.results))
        ids = [*answer.results, *answer.odd]
        return {order_id: self._result(order_id, answer) for order_id in ids}

    def _result(self, order_id: str, answer: CancelAnswer) -> CancelResult | CancelUnknown:
        key = order_id.lower()
        found = answer.results.get(key)
        if found is None:
            return CancelUnknown(order_id, answer.odd.get(key, "the answer does not name it"))
        if key in answer.missing and self._unplaced(key):
            # It may still arrive, and would rest: "not found" is no end of it (OE-20).
            return CancelUnknown(order_id, "the venue does not know it yet, and its placing is not resolved")
        if found is CancelResult.CANCELED:
            self._on_canceled(key)
        elif found is CancelResult.ALREADY_DONE:
            self._on_done()
        return found

    async def _delete(self, path: str, body: bytes, what: str) -> CancelAnswer:
        try:
            answer = await self._http.send("DELETE", path, body)
        except (NotSent, AuthError):
            raise
        except PmkitError as error:
            raise CancelUnknown(what, str(error)) from error
        self._limits.learn(answer.headers, orders=False, status=answer.status)
        if answer.status != 200:
            raise _refusal(answer, what)
        try:
            return read_canceled(answer.body)
        except PmkitError as error:
            raise CancelUnknown(what, str(error)) from error


def check_replacement(cancels: Sequence[str], places: Sequence[Order]) -> None:
    """Raises InvalidOrder where not each order is replaced by one of its own."""
    if len(cancels) != len(places):
        raise InvalidOrder(f"{len(cancels)} orders to cancel and {len(places)} to place: each leg replaces one")
    if len({order_id.lower() for order_id in cancels}) != len(cancels):
        raise InvalidOrder("one order cannot be replaced by two: an id stands twice among the cancels")


def not_replaced(order_id: str, done: CancelResult | PmkitError) -> PmkitError | None:
    """Why the order that was to be cancelled has no successor; None where it may have one."""
    if isinstance(done, PmkitError):
        return done if isinstance(done, CancelUnknown) else CancelUnknown(order_id, str(done))
    return None if done else InvalidOrder(f"{order_id} was not cancelled ({done}): it is not replaced")


def _refusal(answer: HttpAnswer, what: str) -> PmkitError:
    said = f"{answer.host} answered {answer.method} {answer.path} with {answer.status}: {answer.excerpt}"
    if answer.status == 401:
        return AuthError(f"{said}; check the API credentials")
    if answer.status == 403:
        return RegionBlocked(said)
    if answer.status == 429:
        return RateLimited(f"{said}; the cancel may be repeated", answer.retry_after)
    if answer.status == 400 and "invalid order" in answer.excerpt.lower():
        return InvalidOrder(said)
    return CancelUnknown(what, said)
