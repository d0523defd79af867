"""Placing and cancelling over REST (reference: polymarket-trading.md, 3.4 to 3.6, 6.2)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from pmkit.sim.polymarket.auth import ApiKey, ApiKeys
from pmkit.sim.polymarket.desk import Desk
from pmkit.sim.polymarket.limits import SignerLimits
from pmkit.sim.polymarket.modes import POST_ONLY_TEXT, AnswerFaults, Mode, Modes
from pmkit.sim.polymarket.order_body import read_intent
from pmkit.sim.server import Refused, Server, answer

MAX_BATCH = 15
MAX_CANCELS = 1_000


class _Cancel(msgspec.Struct):
    order_id: str = msgspec.field(name="orderID")


class _CancelMarket(msgspec.Struct):
    market: str = ""
    asset_id: str = ""


_batch = msgspec.json.Decoder(list[msgspec.Raw])
_cancel = msgspec.json.Decoder(_Cancel)
_cancels = msgspec.json.Decoder(list[str])
_cancel_market = msgspec.json.Decoder(_CancelMarket)


class OrderRoutes:
    """Registers the routes on a server."""

    def __init__(
        self, server: Server, desk: Desk, keys: ApiKeys, limits: SignerLimits, modes: Modes, answers: AnswerFaults
    ) -> None:
        self._desk = desk
        self._keys = keys
        self._limits = limits
        self._modes = modes
        for add, path, handle in (
            (server.post, "/order", self._place),
            (server.post, "/orders", self._place_many),
            (server.delete, "/order", self._cancel_one),
            (server.delete, "/orders", self._cancel_many),
            (server.delete, "/cancel-all", self._cancel_all),
            (server.delete, "/cancel-market-orders", self._cancel_market),
        ):
            add(path, answers.around(handle))

    # ---- placing

    async def _place(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request, writing=True)
        self._modes.check_order()
        headers = self._limits.take(key.owner, 1)
        try:
            return answer(self._one(await request.read(), key), headers=headers)
        except Refused as refused:
            if refused.text == POST_ONLY_TEXT:
                wait = self._modes.retry_after()
                body = {"error": POST_ONLY_TEXT, "code": "post_only_mode", "retry_after_seconds": wait}
                return answer(body, 503, {**headers, "Retry-After": str(wait)})
            raise Refused(refused.status, refused.text, {**headers, **refused.headers}) from refused

    def _one(self, raw: bytes, key: ApiKey) -> dict[str, Any]:
        intent = read_intent(raw)
        if self._modes.now is Mode.POST_ONLY and not intent.post_only:
            raise Refused(503, POST_ONLY_TEXT)
        return self._desk.place(intent, key)

    async def _place_many(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request, writing=True)
        self._modes.check_order()
        try:
            bodies = _batch.decode(await request.read())
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid order payload") from error
        if len(bodies) > MAX_BATCH:
            raise Refused(400, f"Too many orders in payload: {len(bodies)}, max allowed: {MAX_BATCH}")
        if not bodies:
            raise Refused(400, "Invalid order payload")
        headers = self._limits.take(key.owner, len(bodies))
        legs = []
        for body in bodies:
            try:
                legs.append(self._one(bytes(body), key))
            except Refused as refused:
                # A refused leg says `success: true` all the same (3.5).
                legs.append(
                    {
                        "errorMsg": refused.text,
                        "orderID": "",
                        "takingAmount": "",
                        "makingAmount": "",
                        "status": "",
                        "success": True,
                    }
                )
        return answer(legs, headers=headers)

    # ---- cancelling

    async def _writer(self, request: web.Request) -> ApiKey:
        key = await self._keys.of_request(request, writing=True)
        self._modes.check_cancel()
        return key

    async def _cancel_one(self, request: web.Request) -> web.Response:
        key = await self._writer(request)
        try:
            order_id = _cancel.decode(await request.read()).order_id
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid orderID") from error
        if not order_id.startswith("0x"):
            raise Refused(400, "Invalid orderID")
        headers = self._limits.take(key.owner, 1, cancels=True)
        return answer(self._desk.cancel([order_id], key.owner), headers=headers)

    async def _cancel_many(self, request: web.Request) -> web.Response:
        key = await self._writer(request)
        try:
            order_ids = _cancels.decode(await request.read())
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid order payload") from error
        if len(order_ids) > MAX_CANCELS:
            raise Refused(400, f"Too many orders in payload: {len(order_ids)}, max allowed: {MAX_CANCELS}")
        headers = self._limits.take(key.owner, max(1, len(order_ids)), cancels=True)
        return answer(self._desk.cancel(order_ids, key.owner), headers=headers)

    def _sweep(self, key: ApiKey, market: str = "", asset_id: str = "") -> web.Response:
        headers = self._limits.take(key.owner, 1, cancels=True)
        wanted = [
            row.order_id
            for row in self._desk.open_orders(key.owner)
            if market in ("", row.window.condition_id) and asset_id in ("", row.intent.token)
        ]
        result = self._desk.cancel(wanted, key.owner)
        self._limits.charge(key.owner, len(result["canceled"]))
        return answer(result, headers=headers)

    async def _cancel_all(self, request: web.Request) -> web.Response:
        return self._sweep(await self._writer(request))

    async def _cancel_market(self, request: web.Request) -> web.Response:
        """With neither field it cancels everything, as the real one does."""
        key = await self._writer(request)
        try:
            wanted = _cancel_market.decode(await request.read() or b"{}")
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid order payload") from error
        return self._sweep(key, wanted.market, wanted.asset_id)
