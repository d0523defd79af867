"""Background traders: market makers that quote around the fair value, and takers that hit the book.

One step does one thing (one message for the venue's subscribers); steps are paced in **wall** time, so that a clock
that runs 45 times as fast does not send 45 times as much. What they do depends on market time: the fair value, and how
long the window still lasts. Fast moves are not chased level by level: a taker sweeps what is mispriced in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pmkit.clock import Clock, Entropy
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, MatchingEngine, Order, Side, TimeInForce

MAKERS = ("maker-1", "maker-2", "maker-3")
TAKERS = ("taker-1", "taker-2", "taker-3", "taker-4")

LEVELS = 7
FAR_LEVELS = 4
STEPS_PER_WALL_SECOND = 12.0
TAKER_SHARE = 0.12
LAST_MARKET_SECONDS = 20.0
NERVOUS_MARKET_SECONDS = 4.0
_CERTAIN = 0.93
_WHOLE_STEP = 100
_FINEST = 10
_MISPRICED = 50


@dataclass(frozen=True, slots=True)
class Grid:
    """Legal prices: bands of (from, to, tick) in 0.0001 dollars that follow each other, both ends legal prices."""

    bands: tuple[tuple[int, int, int], ...]

    @classmethod
    def even(cls, tick: int) -> Grid:
        """One tick everywhere, from one tick to 1 dollar minus one tick."""
        return cls(((tick, PRICE_UNITS - tick, tick),))

    def floor(self, price: float) -> int | None:
        """The highest legal price at or below, None where there is none."""
        for low, high, tick in reversed(self.bands):
            if price >= low:
                return low + int(min(price, high) - low) // tick * tick
        return None

    def ceil(self, price: float) -> int | None:
        """The lowest legal price at or above, None where there is none."""
        for low, high, tick in self.bands:
            if price <= high:
                return low + -int(-(max(price, low) - low) // tick) * tick
        return None

    def holds(self, price: int) -> bool:
        return self.floor(price) == price


class Traders:
    """The background flow of one market.

    `fair` is the probability of the first outcome now, `seconds_left` the market seconds until the end, `grid` the
    legal prices now (a tick may change). `client` makes what is handed to the engine with a taker's order, so that a
    venue can say in which outcome it was placed; `hurry` multiplies the pace. Sizes are multiples of `size_step` and
    at least `min_size`, in engine units. While a test sets `resting`, they do nothing.
    """

    def __init__(
        self,
        engine: MatchingEngine,
        *,
        fair: Callable[[], float],
        seconds_left: Callable[[], float],
        grid: Callable[[], Grid],
        clock: Clock,
        entropy: Entropy,
        client: Callable[[Entropy], object] = lambda entropy: None,
        size_step: int = SIZE_UNITS // 100,
        min_size: int = 5 * SIZE_UNITS,
        steps_per_wall_second: float = STEPS_PER_WALL_SECOND,
        hurry: Callable[[], float] = lambda: 1.0,
        makers: Sequence[str] = MAKERS,
        takers: Sequence[str] = TAKERS,
    ) -> None:
        self.engine = engine
        self.steps = 0
        self.resting = False
        self._fair = fair
        self._seconds_left = seconds_left
        self._grid = grid
        self._clock = clock
        self._entropy = entropy
        self._client = client
        self._size_step = size_step
        self._min_size = min_size
        self._pause = 1.0 / steps_per_wall_second
        self._hurry = hurry
        self._makers = tuple(makers)
        self._takers = tuple(takers)
        self._mine = frozenset(makers)
        self._wants: dict[Side, tuple[tuple[float, float, Grid], list[int]]] = {}
        self._nervous = entropy.random() < 0.5

    async def run(self) -> None:
        """Trade until cancelled or until the end of the window."""
        while self._seconds_left() > 0:
            await self._clock.io_sleep(self._pause * self._entropy.uniform(0.6, 1.4) / self._hurry())
            if self._seconds_left() > 0 and not self.resting:
                self.step()

    def fill(self) -> None:
        """Quote the whole ladder at once: the book that those find who ask first."""
        for side in Side:
            for price in self._wanted(side):
                self._quote(side, price)

    def step(self) -> None:
        """Do one thing."""
        self.steps += 1
        if self._sweep():
            return
        if self._entropy.random() < TAKER_SHARE and self._take():
            return
        if not self._requote():
            self._resize()

    # ---- makers

    def _wanted(self, side: Side) -> list[int]:
        """The prices at which makers want to stand, best first. Empty where nobody offers any more."""
        asked = (self._fair(), self._seconds_left(), self._grid())
        kept = self._wants.get(side)
        if kept is None or kept[0] != asked:  # one step asks several times
            kept = self._wants[side] = (asked, self._wanted_now(side, *asked))
        return kept[1]

    def _wanted_now(self, side: Side, fair: float, left: float, grid: Grid) -> list[int]:
        good = fair if side is Side.BUY else 1.0 - fair
        if left < LAST_MARKET_SECONDS and good < 1.0 - _CERTAIN:
            return []  # nobody bids for what has lost: the book is one-sided at the end
        if left < NERVOUS_MARKET_SECONDS and self._nervous:
            return []  # in some windows the makers leave altogether, and both sides are empty
        step = max(_FINEST, _tick_at(grid, fair))
        half = 0.6 * step / PRICE_UNITS + 0.02 * fair * (1.0 - fair) * (1.0 if left > LAST_MARKET_SECONDS else 2.0)
        sign = -1 if side is Side.BUY else 1
        snap = grid.floor if side is Side.BUY else grid.ceil
        prices: dict[int, None] = {}
        for level in range(LEVELS):
            target = (fair + sign * half) * PRICE_UNITS + sign * step * level
            self._add(prices, snap(target), side, fair)
        for level in range(FAR_LEVELS):
            far = _WHOLE_STEP * (4 + 9 * level)
            target = fair * PRICE_UNITS + sign * (half * PRICE_UNITS + far)
            # Whole cents, so that far levels stand still while the fair value moves.
            whole = target // _WHOLE_STEP * _WHOLE_STEP
            self._add(prices, snap(max(_WHOLE_STEP, min(PRICE_UNITS - _WHOLE_STEP, whole))), side, fair)
        return list(prices)

    @staticmethod
    def _add(prices: dict[int, None], price: int | None, side: Side, fair: float) -> None:
        if price is None:
            return
        # A quote on the wrong side of the fair value is a gift; the grid's end may force one, then there is no quote.
        if (price < fair * PRICE_UNITS) if side is Side.BUY else (price > fair * PRICE_UNITS):
            prices[price] = None

    def _own(self, side: Side) -> list[Order]:
        return [order for order in self.engine.orders() if order.side is side and order.owner in self._mine]

    def _requote(self) -> bool:
        """Place the missing quote nearest to the touch, or take away one that nobody wants any more."""
        sides = [Side.BUY, Side.SELL] if self._entropy.random() < 0.5 else [Side.SELL, Side.BUY]
        for side in sides:
            wanted = self._wanted(side)
            own = self._own(side)
            if own and not wanted:
                self.engine.cancel_all(own[0].owner)
                return True
            if len(own) > 2 * (LEVELS + FAR_LEVELS):
                keep = set(wanted)
                worst = max(own, key=lambda order: (order.price not in keep, abs(order.price - self._mid())))
                self.engine.cancel(worst.order_id)
                return True
            missing = [price for price in wanted[:LEVELS] if not self.engine.size_at(side, price)]
            missing += [price for price in wanted[LEVELS:] if not self.engine.size_at(side, price)][:1]
            if missing and self._quote(side, missing[0]):
                return True
        for side in sides:
            wanted = self._wanted(side)
            keep = set(wanted)
            stale = [order for order in self._own(side) if order.price not in keep]
            if len(stale) > FAR_LEVELS:
                self.engine.cancel(stale[0].order_id)
                return True
        return False

    def _mid(self) -> float:
        return self._fair() * PRICE_UNITS

    def _quote(self, side: Side, price: int) -> bool:
        size = self._size(2.0 + 0.05 * abs(price - self._mid()) / _WHOLE_STEP)
        made = self.engine.submit(self._entropy.choice(self._makers), side, price, size, post_only=True)
        return made.order is not None

    def _resize(self) -> None:
        """Replace one quote by another of a different size, or add to a level."""
        own = [*self._own(Side.BUY), *self._own(Side.SELL)]
        if not own:
            return
        order = self._entropy.choice(own)
        if self._entropy.random() < 0.5 and len(own) > LEVELS:
            self.engine.cancel(order.order_id)
        elif order.price in self._wanted(order.side):
            self._quote(order.side, order.price)

    def _size(self, scale: float) -> int:
        """Mostly round numbers of shares, sometimes odd hundredths, as in recorded books."""
        shares = max(5.0, 5.0 + 60.0 * scale * self._entropy.random() ** 3)
        units = int(shares) * SIZE_UNITS
        if self._entropy.random() < 0.25:
            units += self._entropy.randint(1, 99) * (SIZE_UNITS // 100)
        return max(self._min_size, units // self._size_step * self._size_step)

    # ---- takers

    def _sweep(self) -> bool:
        """Take everything that is offered on the wrong side of the fair value."""
        fair = self._fair() * PRICE_UNITS
        grid = self._grid()
        for side, limit in ((Side.BUY, grid.floor(fair)), (Side.SELL, grid.ceil(fair))):
            if limit is None:
                continue
            best = self.engine.best_ask if side is Side.BUY else self.engine.best_bid
            if best is None or (fair - best if side is Side.BUY else best - fair) < _MISPRICED:
                continue
            size = self.engine.available(side, limit)
            self._send(side, limit, size)
            return True
        return False

    def _take(self) -> bool:
        """A taker that pays the spread, more often for the outcome that is ahead."""
        side = Side.BUY if self._entropy.random() < 0.2 + 0.6 * self._fair() else Side.SELL
        best = self.engine.best_ask if side is Side.BUY else self.engine.best_bid
        if best is None:
            return False
        self._send(side, best, self._size(0.6))
        return True

    def _send(self, side: Side, price: int, size: int) -> None:
        self.engine.submit(
            self._entropy.choice(self._takers),
            side,
            price,
            size,
            time_in_force=TimeInForce.IOC,
            client=self._client(self._entropy),
        )


def _tick_at(grid: Grid, fair: float) -> int:
    price = grid.floor(fair * PRICE_UNITS)
    for low, high, tick in grid.bands:
        if price is not None and low <= price <= high:
            return tick
    return _WHOLE_STEP
