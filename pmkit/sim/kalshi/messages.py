"""What the public channels say: the `msg` of each message (reference: kalshi.md, sections 6.4 and 6.5; AsyncAPI)."""

from __future__ import annotations

import msgspec

from pmkit.sim.engine import PRICE_UNITS, Side
from pmkit.sim.kalshi.market import (
    MONEY_UNITS,
    PRICE_RANGES,
    SHARD,
    STRUCTURE,
    Delta,
    LiveMarket,
    Trade,
    book_side,
    count_text,
    price_text,
    strike_text,
    title_of,
)
from pmkit.sim.kalshi.windows import Window, iso_us


def delta_message(
    market: LiveMarket, delta: Delta, at_us: int, *, use_yes_price: bool, own: str | None = None
) -> bytes:
    """The `msg` of an orderbook_delta: the change of a YES bid, or of a NO bid at 1 - p.

    `own` is the client_order_id for the member whose order it was.
    """
    mine: dict[str, object] = {} if own is None else {"client_order_id": own, "subaccount": 0}
    as_is = delta.side is Side.BUY or use_yes_price
    return msgspec.json.encode(
        {
            "market_ticker": market.ticker,
            "market_id": market.market_id,
            "price_dollars": price_text(delta.price if as_is else PRICE_UNITS - delta.price),
            "delta_fp": count_text(delta.size),
            "side": book_side(delta.side),
            "ts": iso_us(at_us),
            "ts_ms": at_us // 1000,
        }
        | mine
    )


def trade_message(trade: Trade) -> bytes:
    """The `msg` of a public trade."""
    bought = trade.taker is Side.BUY
    return msgspec.json.encode(
        {
            "trade_id": trade.trade_id,
            "market_ticker": trade.ticker,
            "yes_price_dollars": price_text(trade.price),
            "no_price_dollars": price_text(PRICE_UNITS - trade.price),
            "count_fp": count_text(trade.size),
            "taker_side": "yes" if bought else "no",
            "taker_outcome_side": "yes" if bought else "no",
            "taker_book_side": "bid" if bought else "ask",
            "is_block_trade": False,
            "ts": trade.at_us // 1_000_000,
            "ts_ms": trade.at_us // 1000,
        }
    )


def ticker_message(market: LiveMarket, at_us: int) -> dict[str, object]:
    """The `msg` of the ticker channel."""
    engine, stats = market.engine, market.stats
    bid, ask = engine.best_bid, engine.best_ask
    return {
        "market_ticker": market.ticker,
        "market_id": market.market_id,
        "price_dollars": price_text(stats.last_price),
        "yes_bid_dollars": price_text(bid or 0),
        "yes_ask_dollars": price_text(ask or PRICE_UNITS),
        "yes_bid_size_fp": count_text(engine.size_at(Side.BUY, bid) if bid else 0),
        "yes_ask_size_fp": count_text(engine.size_at(Side.SELL, ask) if ask else 0),
        "last_trade_size_fp": count_text(stats.last_size),
        "volume_fp": count_text(stats.volume),
        "open_interest_fp": count_text(stats.open_interest),
        "dollar_volume": stats.money // MONEY_UNITS,
        "dollar_open_interest": stats.open_interest * stats.last_price // MONEY_UNITS,
        "ts": at_us // 1_000_000,
        "ts_ms": at_us // 1000,
        "time": iso_us(at_us),
    }


def event_created(window: Window) -> dict[str, object]:
    """`event_lifecycle` of a new event."""
    return {
        "event_ticker": window.event_ticker,
        "exchange_index": SHARD,
        "title": title_of(window),
        "subtitle": "",
        "collateral_return_type": "",
        "series_ticker": window.series,
        "strike_date": window.close_ms // 1000,
    }


def market_created(window: Window) -> dict[str, object]:
    """A new market: its strike is not known yet."""
    return {
        "market_ticker": window.ticker,
        "event_type": "created",
        "exchange_index": SHARD,
        "open_ts": window.open_ms // 1000,
        "close_ts": window.close_ms // 1000,
        "price_level_structure": STRUCTURE,
        "price_ranges": PRICE_RANGES,
        "additional_metadata": {
            "event_ticker": window.event_ticker,
            "title": title_of(window),
            "yes_sub_title": "Target price: TBD",
            "no_sub_title": "Target price: TBD",
            "can_close_early": True,
            "expected_expiration_ts": window.close_ms // 1000 + 300,
        },
    }


def strike_known(window: Window, strike: float) -> dict[str, object]:
    """The strike that the exchange wrote after the open."""
    return {
        "market_ticker": window.ticker,
        "event_type": "metadata_updated",
        "strike_type": "greater_or_equal",
        "floor_strike": strike,
        "yes_sub_title": f"Target Price: {strike_text(window.asset, strike)}",
    }


def determined(window: Window, result: str, at_ms: int) -> dict[str, object]:
    """The result; the payout of YES goes with it."""
    return {
        "market_ticker": window.ticker,
        "event_type": "determined",
        "result": result,
        "determination_ts": at_ms // 1000,
        "settlement_value": "1.0000" if result == "yes" else "0.0000",
    }


def settled(window: Window, at_us: int) -> dict[str, object]:
    """The end; the result is not said again."""
    return {"market_ticker": window.ticker, "event_type": "settled", "settled_ts": at_us // 1_000_000}


def paused(ticker: str, stands: bool) -> dict[str, object]:
    """Trading paused, or resumed."""
    return {
        "market_ticker": ticker,
        "event_type": "deactivated" if stands else "activated",
        "is_deactivated": stands,
    }
