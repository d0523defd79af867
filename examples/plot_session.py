"""Draw a recorded session: the price against the strike, the books with own orders and fills, the profit.

    python examples/plot_session.py FILE        (a recording of record.py; needs matplotlib: pip install matplotlib)

The recording is played back to its bot, which is watched at every tick; the picture is of that dry-run. It goes to
`data/plots/` as a PNG. Times are UTC. A panel per venue shows the first outcome (UP, YES): an order for the other one
is the same bet the other way round, and stands at one dollar minus its price.
"""

import json
import runpy
import sys
from datetime import datetime, timedelta
from pathlib import Path

from pmkit.config.env import Settings
from pmkit.errors import PmkitError
from pmkit.exchanges.market import Market
from pmkit.logging.paths import Paths
from pmkit.replay.session import replay

BOT = "updown_bot.py", "UpDownBot"  # what the recording is played to
ASSET = None  # which asset is drawn; None: the first of the recording
INCHES = 13, 3.0  # width, and height of a panel
DPI = 130

ASK, BID, PRICE, STRIKE, GOOD, BAD = "#c0504d", "#3d85c6", "#333333", "#e69138", "#38761d", "#cc0000"
GAP = timedelta(seconds=10)  # a line is not drawn across more than that


class Seen:
    """What was seen at every tick."""

    def __init__(self):
        self.asset = ASSET
        self.price = []  # (time, dollars)
        self.strikes = {}  # (venue, market id) -> (open, close, dollars)
        self.touch = {}  # venue -> [(time, best bid, best ask)], None where there is none
        self.outcomes = {}  # market id -> outcomes
        self.profit = {}  # venue -> [(time, dollars)]
        self.bids = {}  # (market id, outcome) -> the last best bid: a book may be gone, or empty for a moment
        self.settled = {}  # venue -> [(time, dollars)]

    def look(self, bot):
        self.asset = self.asset or bot.assets[0]
        now = bot.clock.now()
        if bot.feeds and (last := bot.candles(self.asset).last):
            self.price.append((now, last.close))
        for venue in bot.exchanges:
            market = bot.markets[venue, self.asset]
            bid = ask = None
            if isinstance(market, Market):
                self.outcomes[market.market_id] = market.outcomes
                if market.strike is not None:
                    self.strikes[venue, market.market_id] = (market.open_time, market.close_time, float(market.strike))
                book = bot.book(market, market.outcomes[0])
                if book.valid:
                    bid, ask = book.best_bid, book.best_ask
            self.touch.setdefault(venue, []).append((now, bid, ask))
            self.profit.setdefault(venue, []).append((now, float(sum(map(self.worth(bot), self.ledgers(bot, venue))))))

    def ledgers(self, bot, venue):
        return [ledger for (of, _), ledger in bot.ledgers.items() if of == venue and ledger.market.asset == self.asset]

    def worth(self, bot):
        """The profit of a market: what it came to, or what its shares would bring at the best bids."""

        def value(ledger):
            if ledger.pnl is not None:
                return ledger.pnl
            market = ledger.market
            for outcome in ledger.shares:
                book = bot.book(market, outcome)
                if book.valid and book.best_bid is not None:
                    self.bids[market.market_id, outcome] = book.best_bid
            return ledger.value({outcome: self.bids.get((market.market_id, outcome), 0) for outcome in ledger.shares})

        return value


def watched(kind, seen):
    """The bot, looked at before each of its ticks; it decides nothing else for that."""

    class Watched(kind):
        async def _tick(self):
            seen.look(self)
            await super()._tick()

        async def _on_settled(self, asset, market, result, pnl):
            if asset == seen.asset and self.ledger(market).fills:
                seen.settled.setdefault(market.venue, []).append((self.clock.now(), float(pnl)))
            await super()._on_settled(asset, market, result, pnl)

    Watched.__name__ = kind.__name__
    return Watched


def orders_of(decisions, seen):
    """By venue: resting orders as (begin, end, price, for the first outcome), fills as (time, price, same, maker)."""
    resting, fills, orders = {}, {}, {}
    for line in map(json.loads, decisions):
        outcomes = seen.outcomes.get(line.get("market_id"))
        if not outcomes or "order" not in line:
            continue
        now, event, order = datetime.fromisoformat(line["time_utc"]), line["event"], line["order"]
        up = (line.get("outcome") == outcomes[0]) == (line.get("side", "BUY") == "BUY")
        if event == "accepted" and line["status"] == "LIVE":
            price = shown(line, outcomes)
            orders[order] = [now, None, price, up]
            resting.setdefault(line["venue"], []).append(orders[order])
        elif event == "fill":
            fills.setdefault(line["venue"], []).append((now, shown(line, outcomes), up, line["liquidity"] == "MAKER"))
        if event in ("canceled", "cancel", "fill") and order in orders:
            orders[order][1] = now
    return resting, fills


def shown(line, outcomes):
    """A price in terms of the first outcome."""
    price = float(line["price"])
    return price if line["outcome"] == outcomes[0] else 1 - price


def with_gaps(rows):
    """Times and values for a line that breaks where nothing is known."""
    times, values, last = [], [], None
    for now, value in rows:
        if last is not None and now - last > GAP:
            times.append(last)
            values.append(None)
        times.append(now)
        values.append(None if value is None else float(value))
        last = now
    return times, [float("nan") if value is None else value for value in values]


def draw(played, seen):
    """The figure: a panel for the price, one per venue, one for the profit."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    venues = list(seen.touch)
    panels = 2 + len(venues)
    figure = Figure(figsize=(INCHES[0], INCHES[1] * panels), layout="constrained", dpi=DPI)
    heights = [1.0, *[1.3] * len(venues), 0.9]
    axes = figure.subplots(panels, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    draw_price(axes[0], seen)
    resting, fills = orders_of(played.decisions, seen)
    for axis, venue in zip(axes[1:], venues, strict=False):
        draw_book(axis, venue, seen, resting.get(venue, []), fills.get(venue, []))
    draw_profit(axes[-1], seen)
    begin = min(rows[0][0] for rows in seen.touch.values())
    end = max(rows[-1][0] for rows in seen.touch.values())
    for axis in axes:
        for moment in sorted({edge for edges in windows(played, begin, end) for edge in edges}):
            axis.axvline(moment, color="#999999", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.25)
        axis.set_xlim(begin, end)
        axis.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=9)
    locator = AutoDateLocator(minticks=5, maxticks=12)
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes[-1].set_xlabel("time, UTC; dotted: a window ends")
    figure.suptitle(
        f"{played.about.bot} on {' and '.join(venues)}, {seen.asset}, dry-run: "
        f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC",
        fontsize=13,
    )
    return figure


def windows(played, begin, end):
    """The boundaries of 15-minute windows in the picture."""
    minute = begin.replace(second=0, microsecond=0)
    step = timedelta(minutes=1)
    while minute <= end:
        if minute >= begin and minute.minute % 15 == 0:
            yield (minute,)
        minute += step


def draw_price(axis, seen):
    axis.set_title("price against strike", loc="left", fontsize=11)
    axis.set_ylabel(f"{seen.asset}, dollars")
    axis.ticklabel_format(axis="y", style="plain", useOffset=False)
    if seen.price:
        axis.plot(*with_gaps(seen.price), color=PRICE, linewidth=1.1, label=f"{seen.asset} (Binance)")
    named = set()
    for (venue, _), (opens, closes, strike) in seen.strikes.items():
        color = STRIKE if venue == "kalshi" else BID
        label = None if venue in named else f"strike, {venue}"
        named.add(venue)
        axis.plot([opens, closes], [strike, strike], color=color, linewidth=1.8, linestyle="--", label=label)
    if not named and not seen.price:
        axis.text(0.5, 0.5, "neither price nor strike is in the recording", transform=axis.transAxes, ha="center")
        axis.plot([], [], label=" ")


def draw_book(axis, venue, seen, resting, fills):
    rows = seen.touch[venue]
    outcome = next((outcomes[0] for outcomes in seen.outcomes.values() if outcomes[0] in NAMES[venue]), "first outcome")
    axis.set_title(f"{venue}: {outcome}, book and own orders", loc="left", fontsize=11)
    axis.set_ylabel("dollars a share")
    axis.set_ylim(-0.03, 1.03)
    bids = with_gaps([(now, bid) for now, bid, _ in rows])
    asks = with_gaps([(now, ask) for now, _, ask in rows])
    axis.plot(*asks, color=ASK, linewidth=1.0, label="best ask", drawstyle="steps-post")
    axis.plot(*bids, color=BID, linewidth=1.0, label="best bid", drawstyle="steps-post")
    end = rows[-1][0]
    for up, color, label in ((True, BID, "own order, buys it"), (False, ASK, "own order, bets against it")):
        spans = [(begin, until or end, price) for begin, until, price, same in resting if same is up]
        if spans:
            axis.hlines(
                [price for *_, price in spans],
                [begin for begin, *_ in spans],
                [until for _, until, _ in spans],
                color=color,
                linewidth=3.5,
                alpha=0.35,
                label=label,
            )
    for up, maker, marker, label in (
        (True, True, "^", "fill, bought, maker"),
        (True, False, "P", "fill, bought, taker"),
        (False, True, "v", "fill, against it, maker"),
        (False, False, "X", "fill, against it, taker"),
    ):
        points = [(now, price) for now, price, same, made in fills if same is up and made is maker]
        if points:
            axis.scatter(*zip(*points, strict=True), marker=marker, s=70, zorder=5, label=label,
                         facecolor=GOOD if up else BAD, edgecolor="white", linewidth=0.8)  # fmt: skip


NAMES = {"polymarket": ("UP",), "kalshi": ("YES",)}


def draw_profit(axis, seen):
    axis.set_title("profit: open markets at their best bids; marked: what a window came to", loc="left", fontsize=11)
    axis.set_ylabel("dollars")
    axis.axhline(0, color="#666666", linewidth=0.8)
    for (venue, rows), color in zip(seen.profit.items(), (BID, STRIKE), strict=False):
        axis.plot(*with_gaps(rows), color=color, linewidth=1.4, label=venue, drawstyle="steps-post")
        values = dict(rows)
        for now, pnl in seen.settled.get(venue, []):
            height = values[max((moment for moment in values if moment <= now), default=rows[0][0])]
            axis.annotate(f"{pnl:+.2f}", (now, height), xytext=(0, 8), textcoords="offset points", ha="center",
                          fontsize=9, color=GOOD if pnl >= 0 else BAD)  # fmt: skip
            axis.plot([now], [height], marker="o", markersize=6, color=GOOD if pnl >= 0 else BAD)


def main(path):
    """Play the recording and draw it; returns where the picture is."""
    file, name = BOT
    kind = runpy.run_path(str(Path(__file__).with_name(file)))[name]
    seen = Seen()
    played = replay(watched(kind, seen), path)
    target = Paths.of(Settings.load()).data_dir / "plots" / f"{path.name.partition('.')[0]}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    draw(played, seen).savefig(target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/plot_session.py FILE")
    try:
        print(main(Path(sys.argv[1])))
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: pip install 'matplotlib>=3.10,<4'")
    except (PmkitError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
