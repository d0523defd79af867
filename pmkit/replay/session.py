"""`replay`: a bot plays a recorded session again, in virtual time: hours in seconds, twice the same.

    played = replay(FavouriteBot, "data/recordings/FavouriteBot_dry-run_2026-11-28_180000.jsonl.gz")

The bot runs as a dry-run on its usual clients; local servers give the recorded answers and frames at their recorded
moments, and the clock starts at the recording's. A bot that does what the recorded one did is told what that one was
told. One that asks for something else (another market, a book over REST, a socket of its own) gets a clear error, and
`asked` counts it: nothing is made up. Nor do its orders move anything: fills are those of the dry-run.

What is drawn at random (ids, waits before reconnects) comes from a fixed seed, and code takes no time: two replays are
equal to the byte, but a recorded bot on real venues was some milliseconds later here and there. `decisions` and
`recorded` tell whether that mattered.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pmkit.bot.base import BaseBot
from pmkit.bot.decisions import Decisions, timeless
from pmkit.bot.ledger import MarketLedger
from pmkit.bot.life import BotStats
from pmkit.bot.record import About
from pmkit.clock import Clock, Entropy
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.recording.lines import is_recording
from pmkit.sim.replay.files import Damaged, lines
from pmkit.sim.replay.session import Session
from pmkit.sim.replay.session_server import SessionReplay
from pmkit.sim.virtual import VirtualClock, run

if TYPE_CHECKING:
    from pmkit.data.binance.feed import BinanceFeed
    from pmkit.exchanges.kalshi.auth import HandshakeSigner


@dataclass(slots=True)
class Replayed:
    """What came of a replay. `decisions` are the lines of this bot, `recorded` those in the recording (none of a live
    run). `asked`: requests by how they were answered; `sockets`: frames and connections. `holes`: (since ns, until ns,
    lines) that the recorder lost; `damage`: why the file ends early, "" where it is whole.
    """

    about: About
    decisions: list[bytes] = field(default_factory=list)
    recorded: list[bytes] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    sockets: Counter[str] = field(default_factory=Counter)
    holes: list[tuple[int, int, int]] = field(default_factory=list)
    damage: str = ""
    ledgers: Sequence[MarketLedger] = ()
    stats: BotStats = field(default_factory=BotStats)
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether the decisions are the recorded ones to the byte, moments included."""
        return self.decisions == self.recorded

    def apart(self) -> tuple[list[bytes], list[bytes]]:
        """The decisions of here and not of then, and of then and not of here. Their moments, the touch and their order
        are put aside: what happens in the same millisecond on two venues comes in either order.
        """
        return _without(self.decisions, self.recorded), _without(self.recorded, self.decisions)


def _without(some: Sequence[bytes], others: Sequence[bytes]) -> list[bytes]:
    left = Counter(map(timeless, others))
    found: list[bytes] = []
    for line in some:
        key = timeless(line)
        left[key] -= 1
        if left[key] < 0:
            found.append(line)
    return found


def is_session(path: str | Path) -> bool:
    """Whether that file is a recording of pmkit. Raises nothing: what cannot be read is none."""
    try:
        return is_recording(next(lines(Path(path)), b""))
    except (OSError, Damaged):
        return False


def replay(
    bot: type[BaseBot],
    path: str | Path,
    *,
    balance: Decimal | str | int | None = None,
    queue: str | None = None,
    log: logging.Logger | None = None,
) -> Replayed:
    """Play a recording to a bot, up to where the recorded one was stopped. `balance` and `queue` as recorded, unless
    given. Needs `pmkit[sim]`. Raises ConfigError for what is no recording, OSError for what cannot be read.
    """
    session = Session(Path(path))
    try:
        about = msgspec.convert(session.start.about, About)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} says not what was run ({error}): no bot can be run again on it") from None
    return run(_main(bot, session, about, balance or about.balance, queue or about.queue, log))


async def _main(
    bot: type[BaseBot],
    session: Session,
    about: About,
    balance: Decimal | str | int,
    queue: str,
    log: logging.Logger | None,
) -> Replayed:
    began_ns = session.began_ns
    clock = VirtualClock(began_ns // 1_000_000, Entropy(0), factor=session.start.factor)
    played = Replayed(about, recorded=session.decisions)
    async with SessionReplay(session, clock) as venues:
        await venues.until(began_ns)
        exchanges = [
            PaperExchange(_data(venue, venues.endpoints, clock, venue in about.keys), balance=balance, queue=queue)
            for venue in about.venues
        ]
        runner = bot(
            exchanges,
            about.assets,
            feeds=_feeds(venues.endpoints, clock, about),
            clock=clock,
            interval=about.interval,
            trades=Decisions(clock, played.decisions.append),
            log=log,
        )
        ending = asyncio.ensure_future(_stop_when_over(venues, runner))
        try:
            await runner.start()
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            played.seconds = (clock.time_ns() - began_ns) / 1e9
        session.read_to_end()
        if venues.failures:
            raise RuntimeError(f"the replay broke: {venues.failures[0]}")
        played.asked, played.sockets = session.answers, venues.sockets
    played.holes = session.holes
    played.damage = session.damage or ("" if session.whole else "it has no end")
    if session.counts["bad"]:
        played.damage = f"{session.counts['bad']} lines do not read; {played.damage}".removesuffix("; ")
    played.ledgers, played.stats = tuple(runner.ledgers.values()), runner.stats
    return played


async def _stop_when_over(venues: SessionReplay, runner: BaseBot) -> None:
    await venues.over.wait()
    await runner.stop()


def _data(venue: str, endpoints: Endpoints, clock: Clock, with_key: bool) -> MarketData:
    """As `pmkit.bot.venues` makes it; the keys are of no use, since a replay checks none."""
    if venue == "polymarket":
        from pmkit.exchanges.polymarket.auth import HandshakeSigner as PriceSigner
        from pmkit.exchanges.polymarket.market_data import PolymarketMarketData

        secret = base64.b64encode(bytes(32)).decode()
        signer = PriceSigner("00000000-0000-4000-8000-000000000000", secret, "replay") if with_key else None
        return PolymarketMarketData(endpoints, clock, signer=signer)
    if venue == "kalshi":
        from pmkit.exchanges.kalshi.market_data import KalshiMarketData

        return KalshiMarketData(endpoints, clock, signer=_handshake_signer() if with_key else None)
    raise ConfigError(f"the recording names the venue {venue!r}, which this version does not know")


def _handshake_signer() -> HandshakeSigner:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from pmkit.exchanges.kalshi.auth import HandshakeSigner

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return HandshakeSigner.from_key("00000000-0000-4000-8000-000000000000", pem)


def _feeds(endpoints: Endpoints, clock: Clock, about: About) -> list[BinanceFeed]:
    if about.candles is None:
        return []
    from pmkit.data.binance.feed import BinanceFeed
    from pmkit.data.binance.types import symbol_of

    return [BinanceFeed(endpoints, clock, [symbol_of(asset) for asset in about.assets], interval=about.candles)]
