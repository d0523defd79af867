"""What a bot decided and what came of it, line by line: the rows of the trade CSV without what is random in them.

Intents, answers, cancels, fills, rollovers and results, one JSON object each, dated by market time. Orders and fills
are numbered as they turn up in place of their ids, so that two runs that did the same wrote the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol, Unpack

import msgspec

from pmkit.clock import Clock, to_ms, to_utc
from pmkit.logging.csv_logger import COLUMNS, TradeEvent, TradeFields, plain

_IDS = ("client_order_id", "order_id", "fill_id")
_LEFT_OUT = {"time_utc", "mode", "bot", "event", *_IDS}
_KEPT_IDS = 50_000
_ID = re.compile(r"(?:paper-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMELESS = ("time_utc", "best_bid", "best_ask", "seconds_left", "order", "fill")


class TradeWriter(Protocol):
    """What a bot writes its rows to: a `TradeLog`, or something beside one."""

    def write(self, event: TradeEvent, **fields: Unpack[TradeFields]) -> None: ...


class Decisions:
    """Hands each line to `tell`, without line end, and passes the row on to `trades`."""

    def __init__(self, clock: Clock, tell: Callable[[bytes], object], trades: TradeWriter | None = None) -> None:
        self._clock = clock
        self._tell = tell
        self._trades = trades
        self._numbers: dict[str, int] = {}
        self._orders = self._fills = 0

    def write(self, event: TradeEvent, **fields: Unpack[TradeFields]) -> None:
        """One row. Raises as `TradeLog.write`."""
        if self._trades is not None:
            self._trades.write(event, **fields)
        self._tell(self._render(event, dict(fields)))

    def _render(self, event: TradeEvent, fields: dict[str, Any]) -> bytes:
        moment = fields.get("time_utc")
        at = to_utc(self._clock.now_ms() if moment is None else to_ms(moment))
        line: dict[str, str | int] = {
            "time_utc": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
            "event": event.value,
        }
        order, fill = self._order(fields), self._fill(fields)
        for name in COLUMNS:
            value = fields.get(name)
            if value is not None and value != "" and name not in _LEFT_OUT:
                line[name] = self._text(name, value)
        if order:
            line["order"] = order
        if fill:
            line["fill"] = fill
        return msgspec.json.encode(line)

    def _text(self, name: str, value: object) -> str:
        if isinstance(value, Decimal):
            return plain(value)
        if isinstance(value, float):
            return f"{value:.3f}"
        return _ID.sub(self._shown, str(value)) if name == "reason" else str(value)

    def _shown(self, found: re.Match[str]) -> str:
        number = self._numbers.get(found.group())
        return "(id)" if number is None else f"#{number}"

    def _order(self, fields: dict[str, Any]) -> int:
        """The number of an order, known by its client id, the venue's id, or both."""
        ids = [str(fields[name]) for name in ("client_order_id", "order_id") if fields.get(name)]
        if not ids:
            return 0
        number = next((self._numbers[one] for one in ids if one in self._numbers), 0)
        if not number:
            self._orders += 1
            number = self._orders
        self._keep(ids, number)
        return number

    def _fill(self, fields: dict[str, Any]) -> int:
        name = fields.get("fill_id")
        if not name:
            return 0
        number = self._numbers.get(str(name), 0)
        if not number:
            self._fills += 1
            number = self._fills
        self._keep([str(name)], number)
        return number

    def _keep(self, ids: list[str], number: int) -> None:
        self._numbers.update(dict.fromkeys(ids, number))
        while len(self._numbers) > _KEPT_IDS:
            del self._numbers[next(iter(self._numbers))]


def timeless(line: bytes) -> bytes:
    """A line without its moment, its numbers and what depends on the millisecond: to compare sessions and replays."""
    content: dict[str, Any] = msgspec.json.decode(line)
    return msgspec.json.encode({name: value for name, value in content.items() if name not in _TIMELESS})
