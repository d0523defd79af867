"""Recorded files as rows in order.

A file is read twice, each time line by line: once for what it holds (`scan`), once to be served (`rows`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import gcd
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pmkit.errors import ConfigError
from pmkit.sim.replay.files import Damaged, is_zip, lines, member_name, zipped_lines
from pmkit.sim.replay.recording import CandleRow, Form, Frame, Opening, Read, Recording, Row

PRICE_SCALE = 10_000
_CLOB = "polymarket_clob"
_FIRST_MICROSECOND = 10**14
_MEMBER = re.compile(r"([A-Z0-9]+)-(\d+[smhd])-")
_ORDERBOOK_PATH = re.compile(r"/markets/([^/]+)/orderbook$")
_LENGTHS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = re.compile(rb"\d+(\.\d+)?")


def scan(path: Path) -> Recording:
    """Read a file through and say what it holds. Raises FileNotFoundError (and other OSError), and ConfigError for a
    form that is none of these."""
    form, damage = _form_of(path)
    recording = Recording(path, form)
    if form is Form.CANDLES and not damage:
        damage = _name_candles(recording)
    if damage:
        recording.damage = damage
        return recording
    for row in rows(recording):
        _count(recording, row)
    recording.scanned = True
    return recording


def rows(recording: Recording) -> Iterator[Row]:
    """The rows in the order of the file, up to its end or its damage."""
    try:
        yield from _READERS[recording.form](recording)
    except Damaged as error:
        recording.damage = str(error)


def _form_of(path: Path) -> tuple[Form, str]:
    if is_zip(path):
        return Form.CANDLES, ""
    line = b""
    try:
        line = next(lines(path), b"")
    except Damaged as error:
        raise ConfigError(f"{path.name}: {error}, before its first line") from error
    if line.startswith(b"open_time,") or _is_candle(line.split(b",")):
        return Form.CANDLES, ""
    try:
        first = msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError):
        first = None
    if isinstance(first, dict):
        if {"source", "payload", "recv_wall_ts"} <= first.keys():
            return Form.MIXED, ""
        if {"method", "url", "response_body"} <= first.keys():
            return Form.ANSWERS, ""
        if {"condition_id", "outcomes"} <= first.keys():
            return Form.MARKETS, ""
        if isinstance(first.get("type"), str) and ("msg" in first or "sid" in first):
            return Form.KALSHI, ""
    raise ConfigError(
        f"{path.name}: unknown form: it is none of Kalshi socket texts, mixed Polymarket rows, REST answers of Kalshi, "
        "names of Polymarket markets, or a file (CSV or zip) of Binance candles"
    )


def _name_candles(recording: Recording) -> str:
    try:
        name = member_name(recording.path) if is_zip(recording.path) else recording.path.name
    except Damaged as error:
        return str(error)
    found = _MEMBER.match(name)
    if found is None:
        raise ConfigError(f"{recording.path.name}: unknown form: {name!r} is not named like BTCUSDT-1s-2026-01-31.csv")
    recording.symbol, recording.interval = found.groups()
    recording.interval_ms = int(recording.interval[:-1]) * _LENGTHS[recording.interval[-1]]
    return ""


def _count(recording: Recording, row: Row) -> None:
    if isinstance(row, Opening):
        recording.connections += 1
        return
    recording.first_ms = recording.first_ms or row.at_ms
    recording.last_ms = max(recording.last_ms, row.at_ms)
    if isinstance(row, Frame):
        recording.frames += 1
    elif isinstance(row, Read):
        recording.reads += 1
    else:
        recording.candles += 1


# -- Kalshi -----------------------------------------------------------------------------------------------------------


class _KalshiText(msgspec.Struct):
    """What is read of a text to place it; everything may be missing."""

    type: str = ""
    sid: int | None = None
    msg: msgspec.Raw = msgspec.Raw(b"null")


_BOOK_TYPES = ("orderbook_delta", "orderbook_snapshot")
_kalshi_text = msgspec.json.Decoder(_KalshiText)


def _kalshi_rows(recording: Recording) -> Iterator[Row]:
    """Texts have no receive time: a change tells its own, and whatever has none comes right after the one before, or
    with the first that has one."""
    scanning = not recording.scanned
    sids = recording.sids
    seen: set[int] = set()
    at_ms = recording.first_ms
    begun = False
    connections = 0
    for line in lines(recording.path):
        kind, sid, msg = _read_kalshi(line)
        stamp = msg.get("ts_ms")
        if isinstance(stamp, int) and stamp > 10**12:
            at_ms = max(at_ms, stamp)
        if scanning:
            recording.types[kind or "(none)"] += 1
            if kind in _BOOK_TYPES:
                _note_market(recording, msg)
        if kind == "subscribed":
            # The venue counts its subscriptions up on a connection: a number that comes again is another connection.
            sid = msg.get("sid") if isinstance(msg.get("sid"), int) else sid
            if sid in seen:
                seen, begun = set(), False
            if sid is not None:
                seen.add(sid)
        if not begun:
            begun = True
            if scanning:
                sids.append(0)
            yield Opening(at_ms, sids[connections])
            connections += 1
        is_books = kind in _BOOK_TYPES or msg.get("channel") == "orderbook_delta"
        if scanning and is_books and sid and not sids[-1]:
            sids[-1] = sid
        yield Frame(at_ms, line)


def _read_kalshi(line: bytes) -> tuple[str, int | None, dict[str, Any]]:
    try:
        text = _kalshi_text.decode(line)
        msg = msgspec.json.decode(text.msg)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return "", None, {}  # served all the same: what it is, is for the reader to say
    return text.type, text.sid, msg if isinstance(msg, dict) else {}


def _note_market(recording: Recording, msg: dict[str, Any]) -> None:
    ticker = msg.get("market_ticker")
    if not isinstance(ticker, str):
        return
    step = recording.tickers.get(ticker, 0)
    levels = [*(msg.get("yes_dollars_fp") or ()), *(msg.get("no_dollars_fp") or ())]
    prices = [level[0] for level in levels if isinstance(level, list) and level]
    for price in [*prices, msg.get("price_dollars")]:
        if isinstance(price, str) and _NUMBER.fullmatch(price.encode()):
            # A divisor of a dollar as well: few prices have many common steps, of which only those are price grids.
            step = gcd(step, round(float(price) * PRICE_SCALE), PRICE_SCALE)
    recording.tickers[ticker] = step


# -- Polymarket -------------------------------------------------------------------------------------------------------


class _MixedRow(msgspec.Struct):
    source: str
    payload: str
    recv_wall_ts: int


_mixed_row = msgspec.json.Decoder(_MixedRow)


def _mixed_rows(recording: Recording) -> Iterator[Row]:
    """The recorder took only the first frames of a connection and then made another one, about once a minute. What it
    missed in between is in no frame, so its connections must be told apart: the venue opens each with an array of
    whole books. Such an array that holds an asset which had its book already is the start of a new connection; one of
    new assets only is an addition to the old one, and a single book of a known asset is what the venue sends after
    trades.
    """
    scanning = not recording.scanned
    books: set[str] = set()
    begun = False
    for line in lines(recording.path):
        try:
            row = _mixed_row.decode(line)
        except (msgspec.DecodeError, ValueError):
            if scanning:
                recording.bad_rows += 1
            continue
        if row.source != _CLOB:
            if scanning:
                recording.others[row.source] += 1
            continue
        data = row.payload.encode()
        content = _json(data)
        if isinstance(content, dict) and "event_type" not in content and "bids" in content:
            if scanning:
                _note_book(recording, content)
            yield Read(row.recv_wall_ts, str(content.get("asset_id", "")), data)
            continue
        items = [item for item in (content if isinstance(content, list) else [content]) if isinstance(item, dict)]
        if scanning:
            _note_events(recording, items)
        dump = {str(item.get("asset_id")) for item in items if item.get("event_type") == "book"}
        is_dump = isinstance(content, list) and len(dump) > 0
        if not begun or (is_dump and dump & books and (len(dump) > 1 or dump == books)):
            begun, books = True, set()
            yield Opening(row.recv_wall_ts)
        books |= dump
        yield Frame(row.recv_wall_ts, data)


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _note_events(recording: Recording, items: list[dict[str, Any]]) -> None:
    for item in items:
        kind = str(item.get("event_type", "(none)"))
        recording.types[kind] += 1
        if kind == "book":
            _note_book(recording, item)
        elif kind == "price_change":
            for change in item.get("price_changes") or ():
                if isinstance(change, dict):
                    _note_book(recording, {"market": item.get("market"), "asset_id": change.get("asset_id")})
    if not items:
        recording.types["(none)"] += 1


def _note_book(recording: Recording, book: dict[str, Any]) -> None:
    market, asset = book.get("market"), book.get("asset_id")
    if isinstance(market, str) and isinstance(asset, str):
        ticks = recording.markets.setdefault(market, {})
        ticks[asset] = ticks.get(asset) or str(book.get("tick_size") or "")


class _Outcome(msgspec.Struct):
    token_id: str
    outcome: str


class _Market(msgspec.Struct):
    condition_id: str
    outcomes: list[_Outcome]
    slug: str = ""


_market = msgspec.json.Decoder(_Market)


def _market_rows(recording: Recording) -> Iterator[Row]:
    for line in lines(recording.path):
        if recording.scanned:
            return
        try:
            market = _market.decode(line)
        except (msgspec.DecodeError, ValueError):
            recording.bad_rows += 1
            continue
        for token in market.outcomes:
            recording.names[token.token_id] = (market.slug, token.outcome)
        yield from ()


# -- Binance ----------------------------------------------------------------------------------------------------------


def _candle_rows(recording: Recording) -> Iterator[Row]:
    scanning = not recording.scanned
    read = zipped_lines if is_zip(recording.path) else lines
    for number, line in enumerate(read(recording.path)):
        columns = line.split(b",")
        if number == 0 and columns[0] == b"open_time":
            continue
        if not _is_candle(columns):
            if scanning:
                recording.bad_rows += 1
            continue
        texts = [column.decode() for column in columns]
        for place in (0, 6):
            stamp = int(texts[place])
            texts[place] = str(stamp // 1000 if stamp >= _FIRST_MICROSECOND else stamp)
        yield CandleRow(int(texts[0]), tuple(texts))


def _is_candle(columns: list[bytes]) -> bool:
    return len(columns) == 12 and all(_NUMBER.fullmatch(column) for column in columns)


# -- REST answers of Kalshi -------------------------------------------------------------------------------------------


class _Exchange(msgspec.Struct):
    method: str
    url: str
    response_body: str
    status: int = 200


_exchange = msgspec.json.Decoder(_Exchange)


def _answer_rows(recording: Recording) -> Iterator[Row]:
    scanning = not recording.scanned
    for line in lines(recording.path):
        try:
            exchange = _exchange.decode(line)
        except (msgspec.DecodeError, ValueError):
            if scanning:
                recording.bad_rows += 1
            continue
        path = urlsplit(exchange.url).path
        found = _ORDERBOOK_PATH.search(path)
        if found and exchange.method == "GET" and exchange.status == 200:
            yield Read(0, found.group(1), exchange.response_body.encode())
        elif scanning:
            recording.others[f"{exchange.method} {path.rpartition('/')[2]} {exchange.status}"] += 1


_READERS: dict[Form, Callable[[Recording], Iterator[Row]]] = {
    Form.KALSHI: _kalshi_rows,
    Form.MIXED: _mixed_rows,
    Form.CANDLES: _candle_rows,
    Form.ANSWERS: _answer_rows,
    Form.MARKETS: _market_rows,
}
