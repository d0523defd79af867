"""Own trades of the past and what became of their tokens.

The trades are the CLOB's (they have ids, orders and both legs); the results come from the Data API's tokens, and from
Gamma for what is too fresh there. A SELL keeps the label of its token; its profit is against holding to the end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from pmkit.clock import to_ms
from pmkit.errors import PmkitError
from pmkit.exchanges.base import check_limit
from pmkit.exchanges.polymarket.account_stream import CRYPTO_FEES
from pmkit.exchanges.polymarket.catalogue import Catalogue
from pmkit.exchanges.polymarket.credentials import Login
from pmkit.exchanges.polymarket.journal import Journal
from pmkit.exchanges.polymarket.order_queries import OrderQueries
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.user_messages import OwnLeg
from pmkit.exchanges.types import FillState, Liquidity, Side, Trade, TradeResult
from pmkit.http import HttpSession

TOKENS_PER_QUERY: Final = 50
_ZERO: Final = Decimal(0)
_RESULTS: Final = {Decimal(1): TradeResult.WON, _ZERO: TradeResult.LOST}
_LOG = logging.getLogger("pmkit.polymarket")


class _Token(msgspec.Struct, frozen=True):
    token_id: str
    resolved: bool | None = None
    final_price: Decimal | None = None


class _Tokens(msgspec.Struct, frozen=True):
    data: list[_Token]


class History:
    """`get_trade_history` of the account."""

    def __init__(
        self, login: Login, data: HttpSession, queries: OrderQueries, journal: Journal, catalogue: Catalogue
    ) -> None:
        self._login = login
        self._data = data
        self._queries = queries
        self._journal = journal
        self._catalogue = catalogue

    async def trades(self, since: datetime | None, limit: int | None) -> list[Trade]:
        """Oldest first; failed trades are left out. Raises what the queries raise."""
        check_limit(limit)
        identity = await self._login.ready()
        since_ms = None if since is None else to_ms(since)
        found: list[tuple[OwnLeg, int]] = []
        for trade in await self._queries.trades(after_s=None if since_ms is None else since_ms // 1000 - 1):
            if since_ms is not None and trade.matched_ms < since_ms // 1000 * 1000:
                continue
            legs = trade.legs(identity.credentials.api_key, identity.maker, self._journal.records.keys())
            found += [(leg, trade.matched_ms) for leg in legs if leg.state is not FillState.FAILED]
        found = found if limit is None else found[:limit]
        markets = await self._markets({leg.market_id for leg, _ in found})
        payouts = await self._payouts(list(dict.fromkeys(leg.token_id for leg, _ in found)), markets)
        return [_row(leg, at_ms, markets.get(leg.market_id), payouts.get(leg.token_id)) for leg, at_ms in found]

    async def _markets(self, market_ids: set[str]) -> dict[str, PolymarketMarket]:
        """For fees, and for results that the Data API does not have yet."""
        markets: dict[str, PolymarketMarket] = {}
        for market_id in sorted(market_ids):
            market = self._catalogue.known(market_id)
            if market is None or (market.payouts is None and self._catalogue.now_ms() >= market.close_ms):
                try:
                    market = await self._catalogue.condition(market_id)
                except PmkitError as error:
                    _LOG.warning("polymarket: market %s of an own trade cannot be read: %s", market_id, error)
            if market is not None:
                markets[market_id] = market
        return markets

    async def _payouts(self, tokens: Sequence[str], markets: dict[str, PolymarketMarket]) -> dict[str, Decimal]:
        """Dollars per share of the tokens that are resolved."""
        found = {
            token: payout
            for market in markets.values()
            if market.payouts is not None
            for token, payout in zip(market.token_ids, market.payouts, strict=True)
        }
        left = [token for token in tokens if token not in found]
        for first in range(0, len(left), TOKENS_PER_QUERY):
            piece = ",".join(left[first : first + TOKENS_PER_QUERY])
            answer = await self._data.get_json("/v2/tokens", _Tokens, {"token_id": piece})
            for token in answer.data:
                if token.resolved and token.final_price is not None and 0 <= token.final_price <= 1:
                    found[token.token_id] = token.final_price
        return found


def _row(leg: OwnLeg, at_ms: int, market: PolymarketMarket | None, payout: Decimal | None) -> Trade:
    rule = market.fees if market is not None else CRYPTO_FEES
    fee = _ZERO if leg.liquidity is Liquidity.MAKER else rule.fee(leg.price, leg.size)
    outcome = leg.outcome
    if not outcome and market is not None and leg.token_id in market.token_ids:
        outcome = market.outcomes[market.token_ids.index(leg.token_id)]
    result, pnl = TradeResult.OPEN, None
    if payout is not None:
        result = _RESULTS.get(payout if leg.side is Side.BUY else 1 - payout, TradeResult.VOID)
        gain = (payout - leg.price) * leg.size
        pnl = (gain if leg.side is Side.BUY else -gain) - fee
    return Trade(
        trade_id=leg.trade_id,
        order_id=leg.order_id,
        market_id=leg.market_id,
        outcome=outcome,
        side=leg.side,
        price=leg.price,
        size=leg.size,
        fee=fee,
        time_ms=at_ms,
        result=result,
        pnl=pnl,
    )
