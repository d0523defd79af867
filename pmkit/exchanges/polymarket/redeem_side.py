"""The part of `PolymarketExchange` that redeems."""

from __future__ import annotations

from decimal import Decimal

from pmkit.exchanges.polymarket.redeem_types import DUST, RedeemPath, RedeemPreview, RedeemResult
from pmkit.exchanges.polymarket.winnings import Winnings


class RedeemSide:
    """Redeems what an account has won. A mixin: the exchange makes `_winnings` and closes it."""

    _winnings: Winnings

    async def prepare_redeem(self) -> None:
        """Import web3 (a second, in a worker thread) and find a Polygon node, so that neither happens while trading.

        Raises VenueUnavailable where no node answers, ConfigError where it is one of another chain.
        """
        await self._winnings.prepare()

    async def redeem(
        self,
        condition_id: str,
        *,
        via: RedeemPath | str | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> RedeemResult:
        """Turn this account's shares of a resolved market into pUSD, and prove it by receipt and balances.

        A plain key, a Safe or a proxy sends a transaction of its own (the key's address pays gas in POL) or, with
        `via="relayer"`, the wallets use the relayer, as deposit wallets always do. What pays nothing is left alone
        unless `losers`, what pays less than `minimum` pUSD as well. Takes seconds, at most some minutes; the calls of
        one exchange wait for each other.

        Returns success, no effect or unverified, with what to do. May be called again at any time, also after a
        restart or beside another program: the chain pays shares once, and each call looks before it sends.

        Raises, with nothing sent: NotYetRedeemable, RedeemRefused, MarketNotFound, ConfigError, AuthError,
        VenueUnavailable, NotSent. Cancelled while it waits, what was sent stays sent: the next call goes on with it.
        """
        return await self._winnings.redeem(condition_id, via, losers, minimum)

    async def preview_redeem(
        self,
        condition_id: str,
        *,
        via: RedeemPath | str | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> RedeemPreview:
        """What `redeem` would do now: shares, payout, way, gas. Sends nothing; `RedeemView` does it without a key."""
        return await self._winnings.preview(condition_id, via, losers, minimum)

    async def redeemable(self, minimum: Decimal = DUST) -> list[RedeemPreview]:
        """All that pays now: positions whose market has a result on chain, with the shares that the chain has.

        The venue's own flags are not asked. What pays less than `minimum` is listed and false. Markets that could not
        be looked at are logged and in `unredeemable`.
        """
        return await self._winnings.redeemable(minimum)

    @property
    def unredeemable(self) -> dict[str, str]:
        """Condition ids that the last `redeemable()` could not look at, and why."""
        return self._winnings.unreadable
