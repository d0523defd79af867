"""What a wallet could redeem, for anybody who knows its address: no key, nothing sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from types import TracebackType
from typing import Final, Self

from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints
from pmkit.errors import MarketNotFound, ProtocolChanged
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket.chain import CallReverted, Chain
from pmkit.exchanges.polymarket.contracts import CONDITIONAL_TOKENS, POSITION_MANAGER, UNITS
from pmkit.exchanges.polymarket.eip712 import address_bytes, is_position_id
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.position_rows import POSITIONS_PATH, position_rows
from pmkit.exchanges.polymarket.redeem_plan import FindMarket, Planner, read_sizes
from pmkit.exchanges.polymarket.redeem_types import DUST, RedeemCause, RedeemPath, RedeemPreview, Wallet
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.wallets import SignatureType
from pmkit.http import HttpSession

_LOG = logging.getLogger("pmkit.polymarket")

AT_ONCE: Final = 8
"""Markets that are looked at together: public nodes count requests."""

_PROXY_CODE_BYTES: Final = 45
Holdings = dict[str, list[str]]
"""Token ids by condition id."""


def chain_of(endpoints: Endpoints, clock_data: PolymarketMarketData, rpc_url: Secret | str | None) -> Chain:
    """The node to use: the given one alone, else the public ones. Raises ConfigError for an unsafe address."""
    polymarket = endpoints.polymarket
    urls: list[Secret | str] = [polymarket.rpc, *polymarket.rpc_others] if rpc_url is None else [rpc_url]
    return Chain(urls, clock_data.clock)


def by_condition(rows: Iterable[tuple[str, str]]) -> Holdings:
    """(condition id, token id) pairs, grouped."""
    found: Holdings = {}
    for condition_id, token_id in rows:
        tokens = found.setdefault(condition_id.lower(), [])
        if token_id not in tokens:
            tokens.append(token_id)
    return found


class Finder:
    """Finds what can be redeemed among positions, by the chain. `unreadable`: markets that could not be looked at."""

    def __init__(self, chain: Chain, find_market: FindMarket) -> None:
        self.planner = Planner(chain)
        self.unreadable: dict[str, str] = {}
        self._chain = chain
        self._find_market = find_market

    async def find(self, wallet: Wallet, holdings: Holdings, minimum: Decimal) -> list[RedeemPreview]:
        """Previews of all that pays, dust included (which is false), in the order of `holdings`."""
        self.unreadable.clear()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(condition_id: str, tokens: list[str]) -> RedeemPreview | None:
            async with gate:
                return await self._one(wallet, condition_id, tokens, minimum)

        found = await asyncio.gather(*(one(condition_id, tokens) for condition_id, tokens in holdings.items()))
        return [seen for seen in found if seen is not None]

    async def _one(
        self, wallet: Wallet, condition_id: str, tokens: list[str], minimum: Decimal
    ) -> RedeemPreview | None:
        try:
            if not await self._pays(wallet, condition_id, tokens):
                return None
            market: PolymarketMarket = await self._find_market(condition_id)
            seen = await self.planner.preview(market, wallet, minimum=minimum)
        except (MarketNotFound, ProtocolChanged) as error:
            # One odd market must not hide the others; a query that failed raises.
            _LOG.warning("polymarket: %s cannot be looked at: %s", condition_id, error)
            self.unreadable[condition_id] = str(error)
            return None
        return seen if seen or seen.cause is RedeemCause.DUST else None

    async def _pays(self, wallet: Wallet, condition_id: str, tokens: list[str]) -> bool:
        """Whether the chain has a result and the wallet shares of it, before anybody else is asked."""
        ids = [int(token) for token in tokens]
        if is_position_id(tokens[0]):
            contract = POSITION_MANAGER
            try:
                await self._chain.number(calldata.get_payout(contract, ids[0], UNITS))
            except CallReverted:
                return False
        else:
            contract = CONDITIONAL_TOKENS
            if not await self._chain.number(calldata.payout_denominator(contract, condition_id)):
                return False
        batch = calldata.balance_of_batch(contract, wallet.address, ids)
        return any(read_sizes(await self._chain.call(batch), len(ids)))


class RedeemView:
    """Looks at a wallet from outside; an async context manager.

    `signature_type` is found out from the chain where it is not given. `rpc_url`: a Polygon node (none: public ones).
    `owner`, the key's address, lets a preview name the wallet of the same key that holds the shares.
    """

    def __init__(
        self,
        data: PolymarketMarketData,
        wallet: str,
        *,
        signature_type: int | None = None,
        owner: str = "",
        rpc_url: Secret | str | None = None,
    ) -> None:
        address_bytes(wallet)
        self._wallet = wallet
        self._owner = owner
        self._kind = None if signature_type is None else SignatureType(signature_type)
        self._chain = chain_of(data.endpoints, data, rpc_url)
        self._http = HttpSession(data.endpoints.polymarket.data, data.clock, allow=(("GET", POSITIONS_PATH),))
        self._find_market: Callable[[str], Awaitable[PolymarketMarket]] = data.get_market
        self._finder = Finder(self._chain, self._find_market)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        await asyncio.gather(self._chain.close(), self._http.close())

    @property
    def unreadable(self) -> dict[str, str]:
        """Condition ids that the last `redeemable()` could not look at, and why."""
        return self._finder.unreadable

    async def preview(
        self,
        condition_id: str,
        *,
        via: RedeemPath | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> RedeemPreview:
        """What a redeem of that market would do. Raises MarketNotFound, ConfigError, VenueUnavailable."""
        market = await self._find_market(condition_id)
        wallet = await self.wallet()
        return await self._finder.planner.preview(market, wallet, via=via, losers=losers, minimum=minimum)

    async def redeemable(self, minimum: Decimal = DUST) -> list[RedeemPreview]:
        """All that pays now, by the chain. What pays less than `minimum` is listed and false. See `unreadable`."""
        wallet = await self.wallet()
        rows = await position_rows(self._http, wallet.address)
        return await self._finder.find(wallet, by_condition((row.condition_id, row.token_id) for row in rows), minimum)

    async def wallet(self) -> Wallet:
        """The wallet with its kind."""
        if self._kind is None:
            self._kind = await self._found_kind()
        owner = self._wallet if self._kind is SignatureType.EOA else self._owner
        return Wallet(self._wallet, self._kind, owner)

    async def _found_kind(self) -> SignatureType:
        """By its code: none is a plain key, 45 bytes a proxy, what has a threshold a Safe, else a deposit wallet."""
        code = await self._chain.code(self._wallet)
        if not code:
            return SignatureType.EOA
        if len(code) == _PROXY_CODE_BYTES:
            return SignatureType.POLY_PROXY
        try:
            await self._chain.number(calldata.Call(self._wallet, calldata.selector("getThreshold()")))
        except CallReverted:
            return SignatureType.POLY_1271
        return SignatureType.GNOSIS_SAFE
