"""What tests and the fault layer can make the local Binance do, beside what every venue can (`pmkit.sim.faults`).

One object, `BinanceVenue.faults`, in three parts:

* **requests**, over REST and of bulk files: `refuse` (429, 418, 451, 403, 5xx ...), `slow`, `tear`. Each takes `path`
  (a regular expression sought in "GET /api/v3/klines?symbol=..."), `host` (the number of one of the venue's hosts, all
  by default), `times` (how often, None: until `clear`) and `rate` (with what probability). Chance is seeded by the
  World and drawn by request and by how often it was made, so a run repeats whatever the order of concurrent requests.
* **the past**: `outage` and `off_grid`. True over REST, in bulk files and on the sockets at once; they stay when
  `clear` is called, as an outage that happened stays.
* **bulk files**: `spoil` makes one file short, absent, broken, of other units, or its checksum wrong, for good or until
  a moment, after which the file is there as it should be ("silently replaced later").

Standing settings beside it: `BinanceVenue.rest.latency_ms` and `.bulk.latency_ms` (wall, for every answer),
`.rest.lag_ms` (market: how late rows appear), `.rest.settle_ms` (market: how long after its end a row still changes),
`.bulk.daily_lag_ms`, `.bulk.monthly_lag_ms`, `.limits.limit`, `.limits.ban`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.errors import ConfigError
from pmkit.sim.binance.history import History, Shift
from pmkit.sim.binance.intervals import MINUTE
from pmkit.sim.faults import Faults
from pmkit.sim.server import Handler
from pmkit.sim.world import World

# The body of a refusal, of status, and the code and text to be told (None: the usual one).
RefusalBody = Callable[[int, int | None, str | None], tuple[bytes, str]]


class Framing(StrEnum):
    """How an answer says where it ends."""

    LENGTH = "length"  # Content-Length: the client knows that something is missing
    CHUNKED = "chunked"  # the last chunk never comes: the client knows it as well
    CLOSE = "close"  # by closing: nothing shows that something is missing


class Units(StrEnum):
    """Of the times in a bulk file."""

    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    MIXED = "mixed"  # the first half in milliseconds, as KLAYUSDT-1d-2024-10 was


class Spoiled(msgspec.Struct, frozen=True):
    """What is wrong with one bulk file; see `BinanceFaults.spoil`."""

    rows: int | None = None
    units: Units | None = None
    header: bool = False
    missing: bool = False
    corrupt: bool = False
    checksum: bool = False
    until_ms: int | None = None


class _Rule(msgspec.Struct, eq=False):
    number: int
    name: str
    pattern: re.Pattern[str]
    host: int | None
    times: int | None
    rate: float
    status: int = 0
    code: int | None = None
    msg: str | None = None
    retry_after: int | None = None
    seconds: float = 0.0
    after: int = 0
    framing: Framing = Framing.LENGTH


class _OpenEnded(web.StreamResponse):
    """A body without a length and without chunks: it ends where the connection ends."""

    _length_check = False


class BinanceFaults(Faults):
    """The switches of the local Binance. `counts` says how often each did something."""

    def __init__(self, clock: Clock, world: World, histories: Mapping[str, History]) -> None:
        super().__init__(clock)
        self._world = world
        self._histories = histories
        self._rules: list[_Rule] = []
        self._numbers = 0
        self._asked: Counter[tuple[int, str]] = Counter()
        self._spoiled: dict[str, Spoiled] = {}

    # -- requests

    def refuse(
        self,
        status: int,
        *,
        path: str = "",
        host: int | None = None,
        times: int | None = 1,
        rate: float = 1.0,
        retry_after: int | None = None,
        code: int | None = None,
        msg: str | None = None,
    ) -> None:
        """Answer with an error, with the body that the venue (or what stands before it) sends with that status.

        `retry_after` in market seconds; without it 429 says the end of the minute and 418 two minutes. A refused
        request costs no weight. A ban that counts is `BinanceVenue.limits.ban`.
        """
        if not 400 <= status <= 599:
            raise ConfigError(f"a refusal has a status of 400 to 599, not {status}")
        rule = self._rule("refused", path, host, times, rate)
        rule.status, rule.code, rule.msg, rule.retry_after = status, code, msg, retry_after

    def slow(
        self, seconds: float, *, path: str = "", host: int | None = None, times: int | None = 1, rate: float = 1.0
    ) -> None:
        """Hold answers back for wall seconds; other rules still apply to them."""
        self._rule("slowed", path, host, times, rate).seconds = seconds

    def tear(
        self,
        after: int,
        *,
        framing: Framing = Framing.LENGTH,
        stall: float = 0.0,
        path: str = "",
        host: int | None = None,
        times: int | None = 1,
        rate: float = 1.0,
    ) -> None:
        """Cut a body after so many bytes (at least one is always lost) and close; first wait `stall` wall seconds."""
        rule = self._rule("torn", path, host, times, rate)
        rule.after, rule.framing, rule.seconds = after, framing, stall

    def _rule(self, name: str, path: str, host: int | None, times: int | None, rate: float) -> _Rule:
        if not 0.0 <= rate <= 1.0:
            raise ConfigError(f"a rate is a probability, not {rate}")
        rule = _Rule(self._numbers, name, re.compile(path), host, times, rate)
        self._numbers += 1
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """All switches off. What happened in the past, and files as they are, stay."""
        super().clear()
        self._rules.clear()
        self._asked.clear()

    # -- the past

    def outage(self, start_ms: int, end_ms: int, symbol: str | None = None) -> None:
        """No candle opens in [start_ms, end_ms), whole market seconds, of one symbol or all; nowhere and never.

        Longer candles that reach beyond it are there, made of what is left. Raises ConfigError.
        """
        for history in self._chosen(symbol):
            history.add_outage(start_ms, end_ms)

    def off_grid(self, interval: str, start_ms: int, end_ms: int, shift_ms: int, symbol: str | None = None) -> None:
        """Candles of one interval that open in [start_ms, end_ms) show an open and close time `shift_ms` later.

        As after the outage of February 2018, when some intervals opened at hh:28:14.789. Raises ConfigError.
        """
        for history in self._chosen(symbol):
            history.add_shift(Shift(interval, start_ms, end_ms, shift_ms))

    def _chosen(self, symbol: str | None) -> Iterable[History]:
        if symbol is None:
            return self._histories.values()
        if symbol not in self._histories:
            raise ConfigError(f"the local Binance has no {symbol}; it has {', '.join(self._histories)}")
        return (self._histories[symbol],)

    # -- bulk files

    def spoil(
        self,
        name: str,
        *,
        rows: int | None = None,
        units: Units | None = None,
        header: bool = False,
        missing: bool = False,
        corrupt: bool = False,
        checksum: bool = False,
        until_ms: int | None = None,
    ) -> None:
        """Spoil the file of that name, without its ending ("BTCUSDT-1s-2026-03-13"), for good or until a market moment.

        `rows`: it has only so many (its checksum is right: that is how the venue published them). `units`: its times
        are of those. `header`: it begins with a line of names. `missing`: 404. `corrupt`: some byte is wrong, the
        checksum that of the right file. `checksum`: the file is right and its checksum is not.
        """
        self._spoiled[name] = Spoiled(rows, units, header, missing, corrupt, checksum, until_ms)

    def spoiled(self, name: str) -> Spoiled:
        """What is wrong with a file now."""
        found = self._spoiled.get(name)
        if found is None or (found.until_ms is not None and self._clock.now_ms() >= found.until_ms):
            return Spoiled()
        return found

    # -- what the routes ask

    def served(self, handler: Handler, host: int, latency_ms: Callable[[], float], body: RefusalBody) -> Handler:
        """A handler behind these switches. Every answer is held back by `latency_ms` (wall)."""

        async def handle(request: web.Request) -> web.StreamResponse:
            hits = self._hits(request, host)
            wait = latency_ms() / 1000 + sum(rule.seconds for rule in hits if rule.name == "slowed")
            if wait > 0:
                await self._clock.io_sleep(wait)
            for rule in hits:
                if rule.name == "refused":
                    return self._refusal(rule, body)
            answer = await handler(request)
            for rule in hits:
                if (
                    rule.name == "torn"
                    and request.method == "GET"
                    and isinstance(answer, web.Response)
                    and isinstance(answer.body, bytes)
                ):
                    return await self._torn(request, answer, answer.body, rule)
            return answer

        return handle

    def _hits(self, request: web.Request, host: int) -> list[_Rule]:
        if not self._rules:
            return []
        line = f"{request.method} {request.path_qs}"
        hits: list[_Rule] = []
        for rule in list(self._rules):
            if (rule.host is not None and rule.host != host) or not rule.pattern.search(line):
                continue
            if rule.rate < 1.0:
                key = (rule.number, line)
                self._asked[key] += 1
                if self._world.draw("binance", "fault", *key, self._asked[key]) >= rule.rate:
                    continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
            self.counts[rule.name] += 1
            hits.append(rule)
            if rule.name == "refused":
                break  # the rules after it wait for a request that is answered
        return hits

    def _refusal(self, rule: _Rule, body: RefusalBody) -> web.Response:
        now = self._clock.now_ms()
        wait = rule.retry_after
        msg = rule.msg
        if wait is None and rule.status in (418, 429):
            wait = 120 if rule.status == 418 else (MINUTE - now % MINUTE + 999) // 1000
        if rule.status == 418 and msg is None and wait is not None:
            msg = (
                f"Way too much request weight used; IP banned until {now + wait * 1000}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        content, kind = body(rule.status, rule.code, msg)
        headers = {} if wait is None else {"Retry-After": str(wait)}
        return web.Response(status=rule.status, body=content, headers=headers, content_type=kind)

    async def _torn(self, request: web.Request, whole: web.Response, body: bytes, rule: _Rule) -> web.StreamResponse:
        part = body[: min(rule.after, max(0, len(body) - 1))]
        kind = _OpenEnded if rule.framing is Framing.CLOSE else web.StreamResponse
        response = kind(status=whole.status, headers={k: v for k, v in whole.headers.items() if k != "Content-Length"})
        response.force_close()
        if rule.framing is Framing.LENGTH:
            response.content_length = len(body)
        await response.prepare(request)
        await response.write(part)
        if rule.seconds > 0:
            await self._clock.io_sleep(rule.seconds)
        if request.transport is not None:
            request.transport.close()  # what is written still goes out, the end of the body does not
        return response
