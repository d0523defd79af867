"""A whole dry-run session with every credential in the environment: what its bot can reach, and what the venues saw."""

from __future__ import annotations

import asyncio
import gc
import re
import types
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from pmkit.bot import run as bot_run
from pmkit.bot.base import BaseBot
from pmkit.bot.local import LocalProcess
from pmkit.bot.venues import live_exchange
from pmkit.clock import Entropy
from pmkit.config.env import Mode, Settings
from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import PmkitError
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.kalshi.auth import HandshakeSigner as KalshiHandshake
from pmkit.exchanges.kalshi.auth import Signer as KalshiSigner
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.signed_http import SignedSession as KalshiSession
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.auth import HandshakeSigner as PriceHandshake
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.orders import OrderSigner
from pmkit.exchanges.polymarket.signed_http import SignedSession as PolymarketSession
from pmkit.exchanges.types import Order, Side, TimeInForce
from pmkit.http import HttpSession
from pmkit.logging.redact import Redactor
from pmkit.sim.server import Server
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from pmkit.sim.virtual.pipes import PipeTransport

START_MS = 1_795_176_780_000  # two minutes before a boundary
CAN_TRADE = (
    KalshiSigner, Signer, OrderSigner, Credentials, KalshiSession, PolymarketSession, KalshiExchange,
    PolymarketExchange,
)  # fmt: skip
HANDSHAKES = (KalshiHandshake, PriceHandshake)

# (server, method, path) of all that a dry-run may ask for: public reads and the handshakes of sockets. Written from the
# venues' pages, beside the lists in the code.
ALLOWED = re.compile(
    r"""polymarket\ clob\ (GET\ /(time|book|tick-size|neg-risk|ok|markets/.*|clob-markets/.*|ws/market)|POST\ /books)
      | polymarket\ gamma\ GET\ /(events|markets|series)(/.*)?
      | polymarket\ data\ GET\ /ws
      | kalshi\ GET\ /trade-api/(v2/(exchange/(status|schedule)|series(/.*)?|events/.*|markets(/.*)?
                                    |historical/(cutoff|trades|markets/.*))|ws/v2)
      | binance.*\ GET\ .*""",
    re.VERBOSE,
)
PRIVATE_HEADERS = {
    "poly_signature", "poly_api_key", "poly_passphrase", "poly_address", "kalshi-access-signature", "authorization",
}  # fmt: skip


def reachable(start: object, stop: Callable[[object], bool] = lambda thing: False) -> list[object]:
    """All that is held, from object to object, as the collector says; running coroutines with their variables.

    Not through what reaches all of the process: classes, modules, the globals of functions, the event loop, and who
    waits for a task; nor to the other end of a line, where the venue stands.
    """
    seen: dict[int, object] = {}
    todo = [start]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.CodeType | asyncio.AbstractEventLoop):
            continue
        if isinstance(thing, PipeTransport):
            continue
        seen[id(thing)] = thing
        if not stop(thing):
            todo += held_by(thing)
    return list(seen.values())


def held_by(thing: object) -> list[object]:
    if isinstance(thing, types.FunctionType):
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
    if isinstance(thing, types.FrameType):
        return list(thing.f_locals.values())
    if isinstance(thing, types.CoroutineType):
        return [thing.cr_frame, thing.cr_await]
    if isinstance(thing, asyncio.Task):
        return [thing.get_coro()]
    if isinstance(thing, asyncio.Future):
        return [thing._result, thing._exception] if thing.done() and not thing.cancelled() else []
    return gc.get_referents(thing)


def signers(found: list[object]) -> list[str]:
    """What can sign or log in, but for the signers of handshakes and what those alone hold."""
    return sorted({type(thing).__name__ for thing in found if isinstance(thing, CAN_TRADE)})


class Busy(BaseBot):
    """Does all that a strategy can do with an exchange."""

    async def _on_start(self) -> None:
        self.tried: Counter[str] = Counter()
        self.done_on: set[str] = set()
        await self.exchanges["polymarket"].subscribe_trades([], lambda trade: None)

    async def _tick(self) -> None:
        for market in self.markets.values():
            exchange = self.exchanges[market.venue] if market else None
            if exchange is None or market.market_id in self.done_on:
                continue
            book = self.book(market, market.outcomes[0])
            if not book.valid or book.best_ask is None or book.best_bid is None:
                continue
            self.done_on.add(market.market_id)
            self.spawn(self.all_of(exchange, market, book.best_bid, book.best_ask), critical=False)

    async def all_of(self, exchange, market, bid: Decimal, ask: Decimal) -> None:
        outcome, low = market.outcomes[0], market.ceil_price("0.01")
        resting = await exchange.place_limit_order(market, outcome, Side.BUY, low, 10)
        other = await exchange.place_limit_order(market, outcome, Side.BUY, low, 10)
        calls = [
            exchange.place_limit_order(market, outcome, Side.BUY, ask, 10, time_in_force=TimeInForce.IOC),
            exchange.place_market_order(market, outcome, Side.BUY, worst_price=ask, amount=5),
            exchange.place_orders([leg(market, low)]),
            exchange.replace_orders([other], [leg(market, low)]),
            exchange.cancel_order(resting),
            exchange.cancel_all(market),
            exchange.get_order_status(resting),
            exchange.get_open_orders(market),
            exchange.get_positions(),
            exchange.get_balance(market),
            exchange.get_trade_history(),
            exchange.get_orderbook(market, outcome),
            exchange.get_market(market.market_id),
            exchange.keep_warm(),
        ]
        for call in calls:
            try:
                await call
                self.tried["done"] += 1
            except PmkitError as error:
                self.tried[type(error).__name__] += 1

    async def _on_rollover(self, asset, old, new) -> None:
        self.tried["rollover"] += 1

    async def _on_settled(self, asset, market, result, pnl) -> None:
        self.tried["settled"] += 1
        if self.tried["settled"] == 2:
            self.examine()
            self.spawn(self.stop(), critical=False)

    def examine(self) -> None:
        """Called while it runs."""


def leg(market, price) -> Order:
    return Order(market_id=market.market_id, outcome=market.outcomes[0], side=Side.BUY, price=price, size=Decimal(10))


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Run `_main` as `run(..., where=real)` would, on local venues in virtual time; give bot, requests and secrets."""
    seen: list[tuple[str, str, str, frozenset[str]]] = []
    answering = Server._answer

    async def answer(self, request, handler):
        seen.append((self.name, request.method, request.path, frozenset(name.lower() for name in request.headers)))
        return await answering(self, request, handler)

    monkeypatch.setattr(Server, "_answer", answer)

    def play(mode: Mode):
        bots: list[Busy] = []
        found: dict[str, object] = {}

        class Examined(Busy):
            def examine(self) -> None:
                bots.append(self)
                found["all"] = reachable(self)
                found["plain"] = reachable(self, stop=lambda thing: isinstance(thing, (*HANDSHAKES, Redactor)))

        async def main():
            clock = VirtualClock(START_MS, Entropy(3))
            async with LocalVenues(seed=3, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
                account, key = venues.polymarket_account, venues.kalshi_key
                secrets = {
                    "POLYMARKET_PRIVATE_KEY": account.private_key,
                    "POLYMARKET_API_KEY": account.api_key.key,
                    "POLYMARKET_API_SECRET": account.api_key.secret,
                    "POLYMARKET_API_PASSPHRASE": account.api_key.passphrase,
                    "POLYMARKET_RELAYER_API_KEY": "0b5ac5b5-5d41-4a86-8a8b-1f9a3fb9ff0e",
                    "KALSHI_API_KEY_ID": key.id,
                    "KALSHI_PRIVATE_KEY": key.pem,
                }
                environ = {
                    **secrets,
                    "POLYMARKET_FUNDER_ADDRESS": account.funder,
                    "PMKIT_LOG_DIR": str(tmp_path / "logs"),
                    "PMKIT_TRADE_DIR": str(tmp_path / "trades"),
                }
                for name, value in environ.items():
                    monkeypatch.setenv(name, value)
                monkeypatch.chdir(tmp_path)
                settings = Settings.load()
                monkeypatch.setattr(Endpoints, "real", classmethod(lambda cls: venues.endpoints))
                monkeypatch.setattr(Endpoints, "make_clock", lambda self: clock)
                status = await bot_run._main(
                    Examined,
                    settings=settings, where=Where.REAL, mode=mode, venues=["polymarket", "kalshi"], assets=["BTC"],
                    interval="15m", candles="1m", local=LocalProcess(assets=("BTC",), speed=1.0, seed=1),
                    balance=Decimal(1000), queue="middle", record=False,
                )  # fmt: skip
                assert status == 0 and venues.failures == []
                return secrets, settings

        secrets, settings = run(main(), seed=3, latency=0.002)
        (bot,) = bots
        return bot, found, seen, secrets, settings

    return play


def test_oe_23_nothing_that_signs_is_in_reach_of_a_dry_run_and_the_venues_see_public_reads_only(session):
    bot, found, seen, secrets, _ = session(Mode.DRY_RUN)

    # It did something.
    assert bot.tried["done"] >= 24 and bot.tried["rollover"] >= 2, bot.tried

    # What the bot can reach, but for the two handshakes' own insides.
    everything, plain = found["all"], found["plain"]
    assert len(plain) > 5_000
    kinds = {type(thing) for thing in everything}
    assert KalshiHandshake in kinds and PriceHandshake in kinds, "with their keys given, both sockets are logged in"
    assert signers(plain) == []
    assert [thing for thing in plain if isinstance(thing, Secret)] == []
    # The id of a key, which is no secret alone, stands in the request of the socket that it opened.
    texts = [text.removeprefix("0x") for name, text in secrets.items() if name != "KALSHI_API_KEY_ID"]
    held = [thing for thing in plain if isinstance(thing, str) and any(text in thing for text in texts)]
    assert held == [], "but for the log's redactor, which has to know what it must not print"

    # What the sessions let through, and what came in at the venues.
    sessions = [thing for thing in plain if isinstance(thing, HttpSession)]
    assert len(sessions) >= 3 and all(http._allow is not None for http in sessions)
    asked = {f"{server} {method} {path}" for server, method, path, _ in seen}
    assert len(seen) > 20
    assert [line for line in sorted(asked) if not ALLOWED.fullmatch(line)] == []
    signed = {(server, method, path) for server, method, path, names in seen if names & PRIVATE_HEADERS}
    assert {path for _, _, path in signed} <= {"/trade-api/ws/v2"}, "the socket's handshake alone carries a signature"


def test_the_walk_finds_the_signers_of_a_live_bot(monkeypatch):
    """The same walk on what a live bot is given: it would see them."""

    async def main() -> None:
        clock = VirtualClock(START_MS, Entropy(3))
        async with LocalVenues(seed=3, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
            account, key = venues.polymarket_account, venues.kalshi_key
            settings = Settings(
                polymarket_private_key=Secret(account.private_key.removeprefix("0x")),
                polymarket_funder_address=account.funder,
                kalshi_api_key_id=Secret(key.id),
                kalshi_private_key=Secret(key.pem),
            )
            exchanges: list[BaseExchange] = [
                live_exchange(venue, venues.endpoints, clock, settings, None) for venue in ("polymarket", "kalshi")
            ]
            bot = Busy(exchanges, ["BTC"], clock=clock, settings=settings)
            found = reachable(bot)
            assert {"Signer", "KalshiExchange", "PolymarketExchange", "SignedSession"} <= set(signers(found))
            assert any(isinstance(thing, Secret) for thing in found)
            for exchange in exchanges:
                await exchange.close()

    run(main(), seed=3)
