"""Cash and positions of the account.

The Data API is one to three minutes late, so that its rows are overlaid with what the CLOB knows: own trades of the
last minutes and the balances of their tokens. A match moves tokens when it is mined; until then it is pending.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import ConfigError, VenueUnavailable
from pmkit.exchanges.numbers import quotient
from pmkit.exchanges.polymarket.amounts import BASE
from pmkit.exchanges.polymarket.catalogue import Catalogue
from pmkit.exchanges.polymarket.credentials import Identity, Login
from pmkit.exchanges.polymarket.eip712 import exchange_for, is_position_id
from pmkit.exchanges.polymarket.journal import Journal
from pmkit.exchanges.polymarket.order_queries import OrderQueries
from pmkit.exchanges.polymarket.position_rows import POSITIONS_PATH, PositionRow, position_rows
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.user_messages import OwnLeg, OwnOrder, OwnTrade
from pmkit.exchanges.types import FillState, Position, Side
from pmkit.http import HttpSession

DATA_REQUESTS: Final = (("GET", POSITIONS_PATH), ("GET", "/v2/tokens"))
RECENT_MS: Final = 900_000
"""Own trades this young (market time) outweigh the Data API's rows."""

EXPLAIN_SECONDS: Final = 60.0
_LOG = logging.getLogger("pmkit.polymarket")
DATA_LAG_MS: Final = 180_000
_TRIES: Final = 8
AT_ONCE: Final = 8
"""Balances asked for at the same time."""

_MINED: Final = ("MINED", "CONFIRMED")
_ZERO: Final = Decimal(0)
_MICRO: Final = Decimal("0.000001")


class Account:
    """Queries about money and shares. All raise as the sessions do; nothing failed looks empty."""

    def __init__(
        self,
        login: Login,
        data: HttpSession,
        queries: OrderQueries,
        journal: Journal,
        catalogue: Catalogue,
        clock: Clock,
    ) -> None:
        self._login = login
        self._data = data
        self._queries = queries
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._explained: float | None = None

    # -- cash -----------------------------------------------------------------------------------------------------

    async def cash(self) -> Decimal:
        """pUSD of the wallet as the venue sees the chain: matches that are not mined are not in it."""
        identity = await self._login.ready()
        return (await self._login.balance(identity.signature_type)).balance

    async def spendable(self, market: PolymarketMarket) -> Decimal:
        """What a BUY on this market can spend, fee inside: cash and allowance, less open BUY orders and matches that
        are not mined yet."""
        identity = await self._login.ready()
        trades = await self._queries.trades(after_s=self._since_s())
        orders = await self._queries.open_orders()
        found = await self._login.balance(identity.signature_type)
        held = sum((_held(row) for row in orders), _ZERO)
        for trade in trades:
            if _word(trade) in (*_MINED, "FAILED"):
                continue
            for leg in self._legs(identity, trade):
                if leg.side is Side.BUY:
                    fee = _ZERO if leg.liquidity == "MAKER" else market.fees.fee(leg.price, leg.size)
                    held += leg.price * leg.size + fee
        spender = exchange_for(market.token_ids[0], market.neg_risk).contract.lower()
        allowed = Decimal(found.allowances.get(spender, 0)) * _MICRO
        # What a match cost on chain is whole units of pUSD; ours has the decimals of price x size. Down: rather less.
        return max(_ZERO, min((found.balance - held).quantize(_MICRO, ROUND_FLOOR), allowed))

    async def check_allowance(self, market: PolymarketMarket) -> None:
        """Whether the market's exchange contract may take pUSD. Raises ConfigError that names it where it may not."""
        identity = await self._login.ready()
        found = await self._login.balance(identity.signature_type)
        exchange = exchange_for(market.token_ids[0], market.neg_risk)
        if not found.allows(exchange.contract, BASE):
            raise ConfigError(
                f"{identity.maker} does not let the exchange contract {exchange.contract} take its pUSD, so that every "
                f"BUY on {market.label} is refused: approve it (polymarket.com does so with the first trade)"
            )

    async def refresh(self, token_id: str = "") -> None:
        """Have the venue look at the chain again: after deposits, approvals, splits and redeems."""
        identity = await self._login.ready()
        await self._login.refresh_balance(identity.signature_type, _asset_type(token_id), token_id)

    async def explain_funds(self) -> None:
        """After a refusal for lack of money: have the venue look again, and log which other wallet has some.

        Once a minute of wall time at most.
        """
        now = self._clock.io_monotonic()
        if self._explained is not None and now - self._explained < EXPLAIN_SECONDS:
            return
        self._explained = now
        await self.refresh()
        hint = await self._login.other_wallet()
        if hint:
            _LOG.error("polymarket: %s", hint)

    # -- positions ------------------------------------------------------------------------------------------------

    async def positions(self) -> list[Position]:
        """Every token with shares, but those that lost: the Data API does not list what pays nothing.

        Tokens traded in the last 15 minutes or still tradable are exact, and as of now; `as_of_ms` tells of the others.
        """
        identity = await self._login.ready()
        rows = {row.token_id: row for row in await position_rows(self._data, identity.maker)}
        tradable = {token for token, row in rows.items() if not row.redeemable}
        balances: dict[str, Decimal] = {}
        since_s = self._since_s()
        trades = await self._queries.trades(after_s=since_s)
        for _ in range(_TRIES):
            before = _states(trades)
            now_ms = self._catalogue.now_ms()
            touched = self._touched(identity, trades)
            wanted = (touched.keys() | tradable) - balances.keys()
            balances |= await self._balances(identity, wanted, fresh=touched.keys())
            trades = await self._queries.trades(after_s=since_s)
            touched = self._touched(identity, trades)
            # What was mined meanwhile is in the balance or not: nobody can say. Those tokens are read again.
            unsure = {
                token
                for token, legs in touched.items()
                if token not in balances
                or any(_word(trade) in _MINED and before.get(trade.trade_id) not in _MINED for trade, _ in legs)
            }
            if not unsure:
                break
            for token in unsure:
                balances.pop(token, None)
        else:
            raise VenueUnavailable(
                "Polymarket: positions could not be read, since trades were mined all the while; ask again"
            )
        found = [
            self._overlaid(token, touched.get(token, []), balances[token], rows.get(token), now_ms)
            for token in balances
        ]
        found += [_position(row, now_ms) for token, row in rows.items() if token not in balances]
        return [position for position in found if position.size or position.pending]

    async def _balances(self, identity: Identity, tokens: Iterable[str], fresh: Container[str]) -> dict[str, Decimal]:
        """Shares by token; of those in `fresh` the venue looks at the chain first."""
        room = asyncio.Semaphore(AT_ONCE)
        kind = identity.signature_type

        async def read(token: str) -> tuple[str, Decimal]:
            asset = _asset_type(token)
            async with room:
                if token in fresh:
                    await self._login.refresh_balance(kind, asset, token)
                return token, (await self._login.balance(kind, asset, token)).balance

        return dict(await asyncio.gather(*(read(token) for token in sorted(tokens))))

    def _since_s(self) -> int:
        return (self._catalogue.now_ms() - RECENT_MS) // 1000

    def _legs(self, identity: Identity, trade: OwnTrade) -> tuple[OwnLeg, ...]:
        return trade.legs(identity.credentials.api_key, identity.maker, self._journal.records.keys())

    def _touched(self, identity: Identity, trades: Iterable[OwnTrade]) -> dict[str, list[tuple[OwnTrade, OwnLeg]]]:
        touched: dict[str, list[tuple[OwnTrade, OwnLeg]]] = {}
        for trade in trades:
            for leg in self._legs(identity, trade):
                touched.setdefault(leg.token_id, []).append((trade, leg))
        return touched

    def _overlaid(
        self,
        token: str,
        legs: list[tuple[OwnTrade, OwnLeg]],
        balance: Decimal,
        row: PositionRow | None,
        now_ms: int,
    ) -> Position:
        coming = mined = cost = bought = _ZERO
        for trade, leg in legs:
            signed = leg.size if leg.side is Side.BUY else -leg.size
            if leg.state is FillState.FAILED:
                continue
            if _word(trade) not in _MINED:
                coming += signed
            elif leg.state is not FillState.FINAL:
                mined += signed
            if leg.side is Side.BUY:
                cost += leg.size * leg.price
                bought += leg.size
        size = max(_ZERO, balance + coming)
        if row is not None and row.avg_price and (not legs or row.current_size == size):
            average: Decimal | None = row.avg_price
        else:
            average = quotient(cost, bought) if bought else row.avg_price if row is not None else None
        if legs:
            market_id, outcome = legs[0][1].market_id, legs[0][1].outcome
        else:
            assert row is not None
            market_id, outcome = row.condition_id.lower(), (row.outcome or "").upper()
        return Position(
            market_id=market_id,
            token_id=token,
            outcome=outcome or self._outcome(market_id, token),
            size=size,
            average_price=average,
            confirmed=size - coming - mined,
            pending=coming + mined,
            as_of_ms=now_ms,
        )

    def _outcome(self, market_id: str, token: str) -> str:
        market = self._catalogue.known(market_id)
        if market is None or token not in market.token_ids:
            return ""
        return market.outcomes[market.token_ids.index(token)]


def _position(row: PositionRow, now_ms: int) -> Position:
    return Position(
        market_id=row.condition_id.lower(),
        token_id=row.token_id,
        outcome=(row.outcome or "").upper(),
        size=row.current_size,
        average_price=row.avg_price,
        confirmed=row.current_size,
        pending=_ZERO,
        as_of_ms=now_ms - DATA_LAG_MS,
    )


def _held(row: OwnOrder) -> Decimal:
    """Dollars that an open BUY holds back, without the fee."""
    if row.side is not Side.BUY:
        return _ZERO
    if row.size_is_money:
        return max(_ZERO, row.original_size - row.size_matched * row.price)
    return ((row.original_size - row.size_matched) * row.price).quantize(_MICRO, ROUND_CEILING)


def _word(trade: OwnTrade) -> str:
    return trade.status.strip().upper().removeprefix("TRADE_STATUS_")


def _states(trades: Iterable[OwnTrade]) -> dict[str, str]:
    return {trade.trade_id: _word(trade) for trade in trades}


def _asset_type(token_id: str) -> str:
    if not token_id:
        return "COLLATERAL"
    return "CONDITIONAL-V2" if is_position_id(token_id) else "CONDITIONAL"
