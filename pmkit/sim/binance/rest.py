"""The REST side: `ping`, `time`, `exchangeInfo`, `klines` (SPOT/rest-api.md; edges as recorded, see binance.md)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.binance.candles import CandleMaker, WorkTimeout
from pmkit.sim.binance.faults import BinanceFaults
from pmkit.sim.binance.intervals import LENGTHS
from pmkit.sim.binance.limits import Limits
from pmkit.sim.binance.refusals import api_refusal, refuse
from pmkit.sim.binance.rows import RowTexts, opens_between
from pmkit.sim.binance.symbols import Symbol
from pmkit.sim.server import Handler, Refused, Server, answer

DEFAULT_LIMIT = 500
MAX_LIMIT = 1_000
# Milliseconds have 13 digits until the year 2286; whatever is longer is taken as microseconds.
_FIRST_MICROSECOND = 10**14
_LEGAL = {
    "symbol": "^[A-Z0-9-_.]{1,20}$",
    "startTime": "^[0-9]{1,20}$",
    "endTime": "^[0-9]{1,20}$",
    "limit": "^[0-9]{1,20}$",
}

# Market data paths of the real venue that are not here.
_NOT_BUILT = ("aggTrades", "avgPrice", "depth", "historicalTrades", "ticker{rest:.*}", "trades", "uiKlines")

_Query = Mapping[str, str]


class Rest:
    """The handlers.

    `latency_ms` (wall) is added to every answer. `lag_ms` (market) makes klines come from that long ago, as a database
    does; `settle_ms` (market) makes a row that ended less than that ago show what was known that long ago, so that it
    changes after its end. All 0 unless set. `texts.kept` is how many rows are kept as text.
    """

    def __init__(self, makers: Mapping[str, CandleMaker], clock: Clock, limits: Limits, faults: BinanceFaults) -> None:
        self.latency_ms = 0.0
        self.lag_ms = 0
        self.settle_ms = 0
        self.texts = RowTexts(clock)
        self._makers = makers
        self._clock = clock
        self._limits = limits
        self._faults = faults

    def add_routes(self, server: Server, host: int = 0) -> None:
        def route(path: str, handler: Handler) -> None:
            server.get(path, self._faults.served(handler, host, lambda: self.latency_ms, api_refusal))

        for path, weight, allowed, handler in (
            ("ping", 1, (), self._ping),
            ("time", 1, (), self._time),
            ("exchangeInfo", 20, ("symbol", "symbols"), self._exchange_info),
            ("klines", 2, ("symbol", "interval", "startTime", "endTime", "timeZone", "limit"), self._klines),
        ):
            route(f"/api/v3/{path}", self._weighed(weight, allowed, handler))
        for path in _NOT_BUILT:
            route(f"/api/v3/{path}", self._not_built)

    def _weighed(
        self, weight: int, allowed: tuple[str, ...], handler: Callable[[_Query, int], Awaitable[object]]
    ) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            headers = self._limits.spend(request.remote or "", weight)
            try:
                return answer(await handler(_read_query(request, allowed), _time_scale(request)), headers=headers)
            except Refused as refused:
                refused.headers.update(headers)
                raise

        return handle

    async def _not_built(self, request: web.Request) -> web.StreamResponse:
        raise refuse(501, -1020, f"This operation is not supported: {request.path} is not built in this local venue.")

    async def _ping(self, query: _Query, scale: int) -> object:
        return {}

    async def _time(self, query: _Query, scale: int) -> object:
        return {"serverTime": self._clock.now_ms() * scale}

    async def _exchange_info(self, query: _Query, scale: int) -> object:
        names = list(self._makers)
        if "symbol" in query and "symbols" in query:
            raise refuse(400, -1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            names = [query["symbol"]]
        elif "symbols" in query:
            try:
                names = msgspec.json.decode(query["symbols"], type=list[str])
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise refuse(
                    400,
                    -1100,
                    "Illegal characters found in parameter 'symbols'; legal range is "
                    '\'^\\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\\]$\'.',
                ) from error
        if any(name not in self._makers for name in names):
            raise refuse(400, -1121, "Invalid symbol.")
        return {
            "timezone": "UTC",
            "serverTime": self._clock.now_ms() * scale,
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self._limits.limit,
                },
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000},
            ],
            "exchangeFilters": [],
            "symbols": [_symbol_info(self._makers[name].symbol) for name in names],
        }

    async def _klines(self, query: _Query, scale: int) -> object:
        maker = self._makers.get(_text(query, "symbol"))
        if maker is None:
            raise refuse(400, -1121, "Invalid symbol.")
        interval = _mandatory(query, "interval")
        if interval not in LENGTHS:
            raise refuse(400, -1120, "Invalid interval.")
        limit = _number(query, "limit", DEFAULT_LIMIT)
        if limit == 0:
            raise refuse(400, -1130, "Data sent for parameter 'limit' is not valid.")
        if query.get("timeZone", "0") not in ("0", "00:00", "+00:00", "-00:00"):
            raise refuse(400, -1130, "Data sent for parameter 'timeZone' is not valid: this venue serves UTC alone.")
        now = self._clock.now_ms() - self.lag_ms
        start = _moment(query, "startTime")
        end = _moment(query, "endTime")
        opens = opens_between(maker.history, interval, start, end, min(limit, MAX_LIMIT), now)
        try:
            return await self.texts.page(maker, interval, opens, now, now - self.settle_ms, scale)
        except WorkTimeout as error:
            raise refuse(
                408,
                -1007,
                "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
            ) from error


def _read_query(request: web.Request, allowed: tuple[str, ...]) -> _Query:
    query = request.query
    if len(query) > len(allowed):
        raise refuse(400, -1101, f"Too many parameters; expected '{len(allowed)}' and received '{len(query)}'.")
    if len(set(query)) != len(query):
        raise refuse(400, -1101, "Duplicate values for a parameter detected.")
    unread = [name for name in query if name not in allowed]
    if unread:
        read = len(query) - len(unread)
        raise refuse(
            400,
            -1104,
            f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(query)}'.",
        )
    return query


def _time_scale(request: web.Request) -> int:
    """1 for milliseconds, 1000 for microseconds, as the header asks."""
    unit = request.headers.get("X-MBX-TIME-UNIT", "MILLISECOND").upper()
    if unit not in ("MILLISECOND", "MICROSECOND"):
        raise refuse(400, -1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return 1000 if unit == "MICROSECOND" else 1


def _mandatory(query: _Query, name: str) -> str:
    value = query.get(name)
    if value is None:
        raise refuse(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    if not value:
        raise refuse(400, -1105, f"Parameter '{name}' was empty.")
    return value


def _text(query: _Query, name: str) -> str:
    value = _mandatory(query, name)
    if not re.fullmatch(_LEGAL[name], value):
        raise _illegal(name)
    return value


def _number(query: _Query, name: str, default: int) -> int:
    value = query.get(name)
    if value is None:
        return default
    if not re.fullmatch(_LEGAL[name], value):
        raise _illegal(name)
    return int(value)


def _moment(query: _Query, name: str) -> int | None:
    """A time parameter in microseconds; given in either unit."""
    value = _number(query, name, -1)
    if value < 0:
        return None
    return value if value >= _FIRST_MICROSECOND else value * 1000


def _illegal(name: str) -> Refused:
    return refuse(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{_LEGAL[name]}'.")


def _symbol_info(symbol: Symbol) -> dict[str, object]:
    return {
        "symbol": symbol.name,
        "status": "TRADING",
        "baseAsset": symbol.asset,
        "baseAssetPrecision": 8,
        "quoteAsset": "USDT",
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": symbol.tick_text,
                "maxPrice": "1000000.00000000",
                "tickSize": symbol.tick_text,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": symbol.lot_text,
                "maxQty": "9000000.00000000",
                "stepSize": symbol.lot_text,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
