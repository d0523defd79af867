"""The redeeming side of an account: node, relayer and redeemer, made when they are first needed."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal

from pmkit.config.secret import Secret
from pmkit.errors import ConfigError, PmkitError, RedeemRefused
from pmkit.exchanges.polymarket.account import Account
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.credentials import Login
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.redeem import Redeemer
from pmkit.exchanges.polymarket.redeem_types import DUST, RedeemPath, RedeemPreview, RedeemResult, Wallet
from pmkit.exchanges.polymarket.redeem_view import Finder, by_condition, chain_of
from pmkit.exchanges.polymarket.relayer import Relayer
from pmkit.exchanges.polymarket.relayer_messages import BuilderKey, RelayerKey
from pmkit.exchanges.polymarket.transaction_sender import Patience
from pmkit.exchanges.polymarket.wallets import wallets_of
from pmkit.logging.redact import protect

_LOG = logging.getLogger("pmkit.polymarket")

GivenRelayerKey = Secret | tuple[Secret, Secret, Secret] | RelayerKey | BuilderKey | None


def relayer_key(given: GivenRelayerKey, owner: str) -> RelayerKey | BuilderKey | None:
    """A relayer API key, or the three parts of a builder key (key, secret, passphrase). Raises ConfigError."""
    if given is None or isinstance(given, RelayerKey | BuilderKey):
        return given
    if isinstance(given, Secret):
        protect(given)
        return RelayerKey(given.reveal(), owner)
    protect(*given)
    key, secret, passphrase = (part.reveal() for part in given)
    return BuilderKey(key, secret, passphrase)


class Winnings:
    """See the methods of `PolymarketExchange` that are named alike. Nothing connects before the first of them."""

    def __init__(
        self,
        data: PolymarketMarketData,
        login: Login,
        signer: Signer,
        account: Account,
        *,
        rpc_url: Secret | str | None,
        key: GivenRelayerKey,
        patience: Patience | None = None,
    ) -> None:
        clock = data.clock
        patience = patience or Patience()
        self._login = login
        self._signer = signer
        self._account = account
        self._chain = chain_of(data.endpoints, data, rpc_url)
        found = relayer_key(key, signer.address)
        self._relayer: Relayer | None = None
        if found is not None:
            self._relayer = Relayer(data.endpoints.polymarket.relayer, clock, signer, found, self._chain, patience)
        self._finder = Finder(self._chain, data.get_market)
        self._redeemer = Redeemer(self._chain, data.get_market, signer, clock, relayer=self._relayer, patience=patience)
        self._find_market = data.get_market

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        await self._chain.close()
        if self._relayer is not None:
            await self._relayer.close()

    async def prepare(self) -> None:
        """Import what is heavy and find a node."""
        await self._chain.prepare()

    async def _wallet(self) -> Wallet:
        address, kind = await self._login.wallet()
        return Wallet(address, kind, self._signer.address)

    @property
    def unreadable(self) -> dict[str, str]:
        return self._finder.unreadable

    async def redeem(
        self, condition_id: str, via: RedeemPath | str | None, losers: bool, minimum: Decimal
    ) -> RedeemResult:
        wallet = await self._wallet()
        if wallets_of(self._signer.address).type_of(wallet.address) is None:
            raise RedeemRefused(
                "wallet",
                f"{wallet.address} is no wallet of this key ({self._signer.address}), which only trades for it: its "
                "owner's key redeems",
            )
        done = await self._redeemer.redeem(condition_id, wallet, via=_path(via), losers=losers, minimum=minimum)
        if done:
            _LOG.info("polymarket: redeemed %s", done.reason)
            await self._tell_venue(done)
        else:
            _LOG.warning("polymarket: redeem of %s: %s (%s): %s", done.market, done.status, done.cause, done.reason)
        return done

    async def _tell_venue(self, done: RedeemResult) -> None:
        """Have the venue look at the chain: else the pUSD cannot be spent for a while. Its failure changes nothing."""
        try:
            await self._account.refresh()
        except PmkitError as error:
            _LOG.warning("polymarket: %s is redeemed, the venue sees the pUSD later: %s", done.market, error)

    async def preview(
        self, condition_id: str, via: RedeemPath | str | None, losers: bool, minimum: Decimal
    ) -> RedeemPreview:
        market = await self._find_market(condition_id)
        return await self._finder.planner.preview(
            market, await self._wallet(), via=_path(via), losers=losers, minimum=minimum
        )

    async def redeemable(self, minimum: Decimal = DUST) -> list[RedeemPreview]:
        wallet, positions = await asyncio.gather(self._wallet(), self._account.positions())
        held = by_condition((position.market_id, position.token_id) for position in positions)
        return await self._finder.find(wallet, held, minimum)


def _path(via: RedeemPath | str | None) -> RedeemPath | None:
    try:
        return None if via is None else RedeemPath(via)
    except ValueError:
        raise ConfigError(f"via={via!r} is no way to redeem: {', '.join(path.value for path in RedeemPath)}") from None
