"""Order groups and money between shards over REST (reference: kalshi.md, sections 5.11 and 5.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pmkit.sim.kalshi import bodies
from pmkit.sim.kalshi.bodies import Body
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.exchange import Exchange
from pmkit.sim.kalshi.ledger import Account, Transfer, short_money
from pmkit.sim.kalshi.limits import COST
from pmkit.sim.kalshi.market import COUNT_UNIT, count_text
from pmkit.sim.kalshi.order_groups import OrderGroup
from pmkit.sim.kalshi.order_rest import Mutation
from pmkit.sim.kalshi.portfolio_rest import Read
from pmkit.sim.server import answer

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

_CENTICENT = 100  # in millionths of a dollar
# A transfer is asynchronous: the money arrives after market seconds.
TRANSFER_SECONDS = 0.5


class AccountRest:
    """The handlers."""

    def __init__(self, venue: KalshiVenue, exchange: Exchange) -> None:
        self._venue = venue
        self._exchange = exchange
        self._transfers = 0

    def reads(self) -> list[tuple[str, Read, int]]:
        """(path, handler, tokens)."""
        return [
            ("/api_keys", self._keys, COST),
            ("/portfolio/order_groups", self._groups, COST),
            ("/portfolio/order_groups/{group_id}", self._group, COST),
            ("/portfolio/intra_exchange_instance_transfers", self._list_transfers, COST),
            ("/portfolio/intra_exchange_instance_transfers/{transfer_id}", self._get_transfer, COST),
        ]

    def writes(self) -> list[tuple[str, str, Mutation]]:
        """(method, path, handler)."""
        one = "/portfolio/order_groups/{group_id}"
        return [
            ("POST", "/portfolio/order_groups/create", self._create_group),
            ("PUT", f"{one}/limit", self._set_limit),
            ("PUT", f"{one}/reset", self._reset),
            ("PUT", f"{one}/trigger", self._trigger),
            ("DELETE", one, self._delete),
            ("POST", "/portfolio/intra_exchange_instance_transfer", self._transfer),
        ]

    def _spend(self, account: Account, shard: int) -> None:
        self._venue.writes.spend(account.user_id, shard)

    async def _keys(self, request: web.Request, account: Account) -> object:
        accounts = self._venue.accounts
        return {
            "api_keys": [
                {"api_key_id": key_id, "name": "local", "scopes": accounts.scopes_of(key_id)}
                for key_id in accounts.keys_of(account)
            ]
        }

    # ---- order groups

    async def _groups(self, request: web.Request, account: Account) -> object:
        bodies.primary_only(request.query.get("subaccount"))
        return {
            "order_groups": [
                {"id": group.group_id} | _group_fields(group) for group in self._exchange.groups.of(account)
            ]
        }

    async def _group(self, request: web.Request, account: Account) -> object:
        bodies.primary_only(request.query.get("subaccount"))
        group = self._exchange.groups.find(account, request.match_info["group_id"])
        orders = [order.order_id for order in account.resting.values() if order.group_id == group.group_id]
        return _group_fields(group) | {"orders": orders}

    async def _create_group(self, request: web.Request, account: Account) -> web.Response:
        body = await bodies.read_body(request)
        bodies.primary_only(body.get("subaccount"))
        shard = bodies.whole(body, "exchange_index") or 0
        self._spend(account, shard)
        group = self._exchange.groups.create(account, _limit(body), shard)
        return answer({"order_group_id": group.group_id, "subaccount": 0, "exchange_index": shard}, 201)

    def _own(self, request: web.Request, account: Account) -> OrderGroup:
        """The group of a write. Without an exchange index it is looked for on shard 0."""
        query = request.query
        bodies.primary_only(query.get("subaccount"))
        try:
            shard = int(query.get("exchange_index") or 0)
        except ValueError:
            raise bodies.bad("exchange_index must be a whole number") from None
        self._spend(account, shard)
        return self._exchange.groups.find(account, request.match_info["group_id"], shard)

    async def _set_limit(self, request: web.Request, account: Account) -> web.Response:
        limit = _limit(await bodies.read_body(request))
        self._exchange.groups.set_limit(self._own(request, account), limit)
        return answer({})

    async def _reset(self, request: web.Request, account: Account) -> web.Response:
        self._exchange.groups.reset(self._own(request, account))
        return answer({})

    async def _trigger(self, request: web.Request, account: Account) -> web.Response:
        self._exchange.groups.trigger(self._own(request, account))
        return answer({})

    async def _delete(self, request: web.Request, account: Account) -> web.Response:
        self._exchange.groups.delete(self._own(request, account))
        return answer({})

    # ---- transfers

    async def _transfer(self, request: web.Request, account: Account) -> web.Response:
        self._exchange.check_open()
        body = await bodies.read_body(request)
        self._spend(account, 0)
        for name in ("source", "destination"):
            if bodies.text(body, name, required=True) != "event_contract":
                raise bodies.bad(f"{name} must be event_contract in this local venue")
        for name in ("source_subaccount", "destination_subaccount"):
            bodies.primary_only(body.get(name))
        amount = (bodies.whole(body, "amount") or 0) * _CENTICENT
        source = bodies.whole(body, "source_exchange_shard") or 0
        destination = bodies.whole(body, "destination_exchange_shard") or 0
        if amount <= 0 or not (0 <= source <= 3 and 0 <= destination <= 3) or source == destination:
            raise bodies.bad("a transfer moves a positive amount between two exchange shards")
        client_id = bodies.client_order_id(body, "client_transfer_id")
        if client_id and any(transfer.client_id == client_id for transfer in account.transfers.values()):
            raise refuse(409, "transfer_already_exists")
        if account.available(source) < amount:
            raise refuse(400, "insufficient_balance", f"exchange index {source}")
        self._transfers += 1
        transfer = Transfer(
            self._transfers,
            self._venue.clock.entropy.uuid4(),
            client_id,
            source,
            destination,
            amount,
            self._venue.clock.now_ms() // 1000,
        )
        account.transfers[transfer.transfer_id] = transfer
        account.cash[source] -= amount
        self._venue.spawn(self._arrive(account, transfer), f"transfer {transfer.number}")
        return answer({"transfer_id": transfer.transfer_id})

    async def _arrive(self, account: Account, transfer: Transfer) -> None:
        await self._venue.clock.sleep(TRANSFER_SECONDS)
        account.cash[transfer.destination] = account.cash.get(transfer.destination, 0) + transfer.amount
        transfer.complete = True

    async def _list_transfers(self, request: web.Request, account: Account) -> object:
        newest = sorted(account.transfers.values(), key=lambda transfer: -transfer.number)
        return {"transfers": [_transfer_object(transfer) for transfer in newest], "cursor": ""}

    async def _get_transfer(self, request: web.Request, account: Account) -> object:
        transfer = account.transfers.get(request.match_info["transfer_id"])
        if transfer is None:
            raise refuse(404, "not_found", "no such transfer")
        return {"transfer": _transfer_object(transfer)}


def _limit(body: Body) -> int:
    """`contracts_limit_fp`, or `contracts_limit` in whole contracts; they must agree. In engine units."""
    whole = bodies.whole(body, "contracts_limit")
    exact = bodies.count(body, "contracts_limit_fp") if body.get("contracts_limit_fp") is not None else None
    if whole is None and exact is None:
        raise bodies.bad("contracts_limit or contracts_limit_fp is required")
    if whole is not None and (whole < 1 or exact not in (None, whole * 100 * COUNT_UNIT)):
        raise bodies.bad("contracts_limit must be at least 1 and agree with contracts_limit_fp")
    return whole * 100 * COUNT_UNIT if whole is not None else exact or 0


def _group_fields(group: OrderGroup) -> dict[str, object]:
    return {
        "contracts_limit_fp": count_text(group.limit),
        "is_auto_cancel_enabled": not group.triggered,
        "exchange_index": group.shard,
    }


def _transfer_object(transfer: Transfer) -> dict[str, object]:
    return {
        "transfer_id": transfer.transfer_id,
        "source": "event_contract",
        "destination": "event_contract",
        "source_exchange_shard": transfer.source,
        "destination_exchange_shard": transfer.destination,
        "amount": short_money(transfer.amount),
        "status": "complete" if transfer.complete else "pending",
        "created_ts": transfer.created_s,
    }
