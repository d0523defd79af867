"""From a venue's name to its market data, dry-run or live exchange, with the keys that belong to it."""

from __future__ import annotations

import logging

from pmkit.bot.local import LocalLine
from pmkit.clock import Clock
from pmkit.config.env import Settings
from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError
from pmkit.exchanges.base import BaseExchange, MarketData

VENUES = ("polymarket", "kalshi")


def market_data(
    venue: str, endpoints: Endpoints, clock: Clock, settings: Settings, local: LocalLine | None = None
) -> MarketData:
    """The public side of a venue. What only a key opens (Kalshi's socket, Polymarket's live prices) is opened, where
    there is one, with what can do nothing else.
    """
    if venue == "polymarket":
        from pmkit.exchanges.polymarket.auth import HandshakeSigner as PriceSigner
        from pmkit.exchanges.polymarket.market_data import PolymarketMarketData

        given = _api_credentials(settings) if local is None else None
        price_signer = None if given is None else PriceSigner(*(part.reveal() for part in given))
        return PolymarketMarketData(endpoints, clock, signer=price_signer)
    from pmkit.exchanges.kalshi.auth import HandshakeSigner
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData

    key = _kalshi_key(settings, local)
    if key is None:
        logging.getLogger("pmkit.bot").info("no Kalshi key: books come from REST polls about once a second")
    signer = None if key is None else HandshakeSigner.from_key(key[0], key[1].reveal())
    return KalshiMarketData(endpoints, clock, signer=signer)


def listens_with_key(venue: str, settings: Settings, local: LocalLine | None) -> bool:
    """Whether what only a key opens is opened: Kalshi's socket, Polymarket's live prices."""
    if venue == "polymarket":
        return local is None and _api_credentials(settings) is not None
    return _kalshi_key(settings, local) is not None


def live_exchange(
    venue: str, endpoints: Endpoints, clock: Clock, settings: Settings, local: LocalLine | None = None
) -> BaseExchange:
    """A venue with the account that local venues made or the settings name. Raises ConfigError where a key is
    missing.
    """
    if venue == "polymarket":
        from pmkit.exchanges.polymarket.client import PolymarketExchange

        if local is not None:
            account = local.polymarket_account
            return PolymarketExchange(
                endpoints,
                clock,
                private_key=Secret(account.private_key),
                funder=account.funder,
                signature_type=account.signature_type,
            )
        if settings.polymarket_private_key is None:
            raise ConfigError("live on Polymarket needs POLYMARKET_PRIVATE_KEY")
        return PolymarketExchange(
            endpoints,
            clock,
            private_key=settings.polymarket_private_key,
            funder=settings.polymarket_funder_address,
            signature_type=settings.polymarket_signature_type,
            credentials=_api_credentials(settings),
            rpc_url=settings.polygon_rpc_url,
            relayer_key=_relayer_key(settings),
        )
    from pmkit.exchanges.kalshi.auth import Signer
    from pmkit.exchanges.kalshi.client import KalshiExchange

    key = _kalshi_key(settings, local)
    if key is None:
        raise ConfigError("live on Kalshi needs KALSHI_API_KEY_ID and a private key")
    return KalshiExchange(endpoints, clock, signer=Signer.from_key(key[0], key[1].reveal()))


def _api_credentials(settings: Settings) -> tuple[Secret, Secret, Secret] | None:
    parts = (settings.polymarket_api_key, settings.polymarket_api_secret, settings.polymarket_api_passphrase)
    key, secret, passphrase = parts
    return None if key is None or secret is None or passphrase is None else (key, secret, passphrase)


def _relayer_key(settings: Settings) -> Secret | tuple[Secret, Secret, Secret] | None:
    """What the relayer takes: a key of its own, else a builder key with all three parts."""
    if settings.polymarket_relayer_api_key is not None:
        return settings.polymarket_relayer_api_key
    key, secret = settings.polymarket_builder_api_key, settings.polymarket_builder_secret
    passphrase = settings.polymarket_builder_passphrase
    if key is None or secret is None or passphrase is None:
        return None
    return key, secret, passphrase


def _kalshi_key(settings: Settings, local: LocalLine | None) -> tuple[str, Secret] | None:
    if local is not None:
        return local.kalshi_key.id, Secret(local.kalshi_key.pem)
    if settings.kalshi_api_key_id is None or (pem := settings.kalshi_pem()) is None:
        return None
    return settings.kalshi_api_key_id.reveal(), pem
