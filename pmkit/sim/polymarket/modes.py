"""What the venue lets through, and what becomes of its answers (reference: polymarket-trading.md, 3.11, 6.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from aiohttp import web

from pmkit.clock import Clock, Entropy
from pmkit.sim.faults import Faults
from pmkit.sim.server import Refused

POST_ONLY_TEXT = "post-only mode: only post-only orders and cancels are allowed"
MATCH_DELAYED = "order match delayed due to market conditions"
TEXTS_500 = (
    "could not run the execution",
    "could not insert order",
    "order timed out",
    "there are no matching orders",
    "the trade contains rounding issues",
)
POST_ONLY_SECONDS = 120.0
DOWN_SECONDS = 90.0

_Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mode(StrEnum):
    """NORMAL lets everything through."""

    NORMAL = "normal"
    RESTARTING = "restarting"
    POST_ONLY = "post_only"
    CANCEL_ONLY = "cancel_only"
    DISABLED = "disabled"


class Modes:
    """The trading mode. `set` holds until told otherwise; `restart` goes through 425 and post-only by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mode = Mode.NORMAL
        self._down_until = 0.0
        self._post_only_until = 0.0
        self.region_blocked = False

    def set(self, mode: Mode) -> None:
        """Stay in a mode."""
        self._mode = mode
        self._down_until = self._post_only_until = 0.0

    def restart(self, down: float = DOWN_SECONDS, post_only: float = POST_ONLY_SECONDS) -> None:
        """Market seconds of 425, then of post-only mode."""
        self._down_until = self._clock.monotonic() + down
        self._post_only_until = self._down_until + post_only

    @property
    def now(self) -> Mode:
        at = self._clock.monotonic()
        if at < self._down_until:
            return Mode.RESTARTING
        return Mode.POST_ONLY if at < self._post_only_until else self._mode

    def retry_after(self) -> int:
        """Whole seconds until post-only mode ends."""
        left = self._post_only_until - self._clock.monotonic()
        return max(1, round(left)) if left > 0 else round(POST_ONLY_SECONDS)

    def check_cancel(self) -> None:
        """Raises Refused where not even a cancel is taken."""
        if self.now is Mode.RESTARTING:
            raise Refused(425, "Too Early")
        if self.now is Mode.DISABLED:
            raise Refused(503, "Trading is currently disabled. Check polymarket.com for updates")

    def check_order(self) -> None:
        """Raises Refused where no order at all is taken."""
        self.check_cancel()
        if self.now is Mode.CANCEL_ONLY:
            text = "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed."
            raise Refused(503, text)
        if self.region_blocked:
            raise Refused(403, "Trading restricted in your region")


class AnswerFaults:
    """What goes wrong between the desk and the client of an order.

    Armed by name for the next answers on `Faults`, or by chance with `shares` {name: probability}. `request_lost`:
    reset, nothing done; `request_late`: reset, and done `zombie_seconds` of wall time later; `answer_lost`: done, then
    reset; `answer_late`: done, answered after `late_seconds` of wall time; `answer_500`: done, then a 500 with
    `text_500`; `request_500`: the same 500, nothing done; `answer_400`: done, then the 400 that says "delayed".
    """

    NAMES = (
        *("request_lost", "request_late", "request_500"),
        *("answer_lost", "answer_late", "answer_500", "answer_400"),
    )

    def __init__(self, clock: Clock, entropy: Entropy, faults: Faults) -> None:
        self.shares: dict[str, float] = {}
        self.late_seconds = 2.0
        self.text_500 = TEXTS_500[0]
        self.zombie_seconds = 1.0
        self._clock = clock
        self._entropy = entropy
        self._faults = faults

    def _drawn(self) -> str:
        for name in self.NAMES:
            if self._faults.take(name):
                return name
        chance = self._entropy.random()
        for name, share in self.shares.items():
            chance -= share
            if chance < 0:
                self._faults.counts[name] += 1
                return name
        return ""

    def around(self, handle: _Handle) -> _Handle:
        """A handler of requests that place or cancel, which may fail to answer."""

        async def answering(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, handle)

        return answering

    async def _answer(self, request: web.Request, handle: _Handle) -> web.StreamResponse:
        await request.read()
        fault = self._drawn()
        if fault == "request_lost":
            self._reset(request)
        if fault == "request_500":
            raise Refused(500, self.text_500)
        if fault == "request_late":
            self._abort(request)
            await self._clock.io_sleep(self.zombie_seconds)
        try:
            response = await handle(request)
        except Refused:
            if fault in ("answer_lost", "request_late"):
                self._reset(request)
            raise
        if fault in ("answer_lost", "request_late"):
            self._reset(request)
        if fault == "answer_late":
            await self._clock.io_sleep(self.late_seconds)
        if fault == "answer_500":
            raise Refused(500, self.text_500)
        if fault == "answer_400":
            raise Refused(400, MATCH_DELAYED)
        return response

    @staticmethod
    def _abort(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()

    def _reset(self, request: web.Request) -> None:
        self._abort(request)
        raise ConnectionResetError("the answer is lost on purpose")
