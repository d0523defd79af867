"""A Polygon node, over web3: reads, estimates, fees, broadcasts, receipts.

web3 takes a second to import, so that happens in a worker thread, on first use or by `prepare()`. One node is used at a
time: of the given ones the first that answers and is on the right chain, another only once it fails. Nodes behind a
balancer lag behind each other, so whoever reads after a transaction names the block. Nothing here sends on its own.

No message holds an address with a key in it: a node is named by its host.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pmkit.clock import Clock
from pmkit.config.env import secrets_in_url
from pmkit.config.secret import Secret
from pmkit.endpoints import require_safe
from pmkit.errors import ConfigError, NotSent, PmkitError, VenueUnavailable
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.contracts import ZERO_ADDRESS
from pmkit.exchanges.polymarket.eip712 import POLYGON
from pmkit.exchanges.polymarket.transactions import Fees, Log, Receipt, Transaction, polygon_fees
from pmkit.logging.redact import protect

T = TypeVar("T")

REQUEST_SECONDS: Final = 10.0
READ_TRIES: Final = 3
READ_WAIT_SECONDS: Final = 0.5
_UNKNOWN_BLOCK: Final = ("header not found", "unknown block", "block not found", "not found")
_LOG = logging.getLogger("pmkit.polymarket")


class CallReverted(PmkitError):
    """A call or an estimate reverted; `reason` is the contract's text, as far as it gave one."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"reverted: {reason or 'without a reason'}")


class NodeRefused(PmkitError):
    """The node answered with an error of its own; `text` is that."""

    def __init__(self, host: str, text: str) -> None:
        self.text = text
        super().__init__(f"{host}: {text}")


class NodeLags(VenueUnavailable):
    """The node does not have that block yet."""


def _import_web3() -> Any:
    """py_ecc, deep below web3, raises the recursion limit of the process to 100,000 when it is imported. With that, a
    body of nothing but brackets does not end in a RecursionError but ends the process: the limit stays what it was.
    """
    limit = sys.getrecursionlimit()
    try:
        return importlib.import_module("web3")
    finally:
        sys.setrecursionlimit(limit)


class Chain:
    """One chain, by the first of `urls` that works. Close it at the end. Raises ConfigError for an unsafe address."""

    def __init__(self, urls: Sequence[str | Secret], clock: Clock, chain_id: int = POLYGON) -> None:
        self._urls = [url.reveal() if isinstance(url, Secret) else url for url in urls]
        for url in self._urls:
            require_safe(url, "the Polygon node")
            protect(*secrets_in_url(url))
        self._clock = clock
        self._chain_id = chain_id
        self._place = 0
        self._lock = asyncio.Lock()
        self._web3: Any = None
        self._opened: dict[int, Any] = {}
        self._closed = False
        self.host = ""

    # -- life -----------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Import web3 and find a node. Raises VenueUnavailable where none answers, ConfigError for a wrong chain."""
        if self._web3 is None:
            async with self._lock:
                if self._web3 is None:
                    await self._find()

    async def _find(self) -> None:
        if self._closed:
            raise NotSent("the connection to the Polygon node is closed")
        module = await asyncio.to_thread(_import_web3)
        failures: list[str] = []
        wrong: list[str] = []
        for step in range(len(self._urls)):
            place = (self._place + step) % len(self._urls)
            host = urlsplit(self._urls[place]).hostname or "?"
            web3 = self._opened.get(place)
            if web3 is None:
                provider = module.AsyncHTTPProvider(
                    self._urls[place],
                    request_kwargs={"timeout": _client_timeout(REQUEST_SECONDS)},
                    exception_retry_configuration=None,  # what is repeated is decided here
                )
                web3 = self._opened[place] = module.AsyncWeb3(provider)
            try:
                chain_id = await self._ask(web3.eth.chain_id, host)
            except PmkitError as error:
                failures.append(str(error))
                continue
            if chain_id != self._chain_id:
                wrong.append(f"{host} is a node of chain {chain_id}, not of {self._chain_id} (Polygon)")
                continue
            self._web3, self._place, self.host = web3, place, host
            return
        if wrong and not failures:
            raise ConfigError("; ".join(wrong) + ": set POLYGON_RPC_URL to a node of Polygon")
        raise VenueUnavailable(
            f"no Polygon node answers ({'; '.join([*failures, *wrong])}): set POLYGON_RPC_URL to one that does"
        )

    async def _switch(self, failed: Any) -> None:
        """Take another node after one failed, unless somebody else has done so already."""
        async with self._lock:
            if self._web3 is not failed:
                return
            self._web3 = None
            self._place = (self._place + 1) % len(self._urls)
            try:
                await self._find()
            except PmkitError as error:
                _LOG.warning("polymarket: %s", error)

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        self._closed = True
        self._web3 = None
        # Also those of nodes that failed: a question that was on its way may have opened one again.
        for web3 in self._opened.values():
            await web3.provider.disconnect()

    async def _node(self) -> Any:
        await self.prepare()
        return self._web3

    async def _ask(self, question: Awaitable[T], host: str = "") -> T:
        """One question, its failures as pmkit's errors, without the node's address."""
        import aiohttp
        from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError

        host = host or self.host
        try:
            async with self._clock.io_timeout(REQUEST_SECONDS):
                return await question
        except ContractLogicError as error:
            raise CallReverted(_reason(error)) from None
        except TransactionNotFound:
            raise
        except Web3RPCError as error:
            raise _node_error(host, error) from None
        except aiohttp.ClientResponseError as error:
            raise VenueUnavailable(f"the Polygon node {host} answered with {error.status}", error.status) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VenueUnavailable(f"the Polygon node {host} gave no answer ({type(error).__name__})") from None
        except (Web3Exception, ValueError) as error:
            raise VenueUnavailable(
                f"the Polygon node {host} gave an answer that is none ({type(error).__name__})"
            ) from None

    async def _read(self, question: Any) -> Any:
        """A question that may be asked again: `question(web3)` gives the coroutine."""
        for attempt in range(READ_TRIES):
            web3 = await self._node()
            try:
                return await self._ask(question(web3))
            except VenueUnavailable:
                if attempt + 1 == READ_TRIES:
                    raise
                await self._clock.io_sleep(READ_WAIT_SECONDS)
                if attempt + 2 == READ_TRIES:
                    await self._switch(web3)
        raise AssertionError

    # -- reads ----------------------------------------------------------------------------------------------------

    async def block_number(self) -> int:
        return int(await self._read(lambda web3: web3.eth.block_number))

    async def call(self, call: Call, *, sender: str = ZERO_ADDRESS, block: int | None = None) -> bytes:
        """The answer of a contract, as of a block. Raises CallReverted, NodeLags for a block it does not have."""
        fields = {"from": sender, "to": call.to, "data": "0x" + call.data.hex()}
        return bytes(await self._read(lambda web3: web3.eth.call(fields, "latest" if block is None else block)))

    async def number(self, call: Call, *, block: int | None = None) -> int:
        """The same, of a view with one number as its answer. Raises NodeRefused where it is no number."""
        data = await self.call(call, block=block)
        if len(data) != 32:
            raise NodeRefused(self.host, f"{call.to} answers with {len(data)} bytes instead of a number")
        return int.from_bytes(data)

    async def estimate(self, call: Call, sender: str) -> int:
        """Units of gas. Raises CallReverted where it would revert."""
        fields = {"from": sender, "to": call.to, "data": "0x" + call.data.hex(), "value": call.value}
        return int(await self._read(lambda web3: web3.eth.estimate_gas(fields)))

    async def nonce(self, address: str, *, pending: bool) -> int:
        tag = "pending" if pending else "latest"
        return int(await self._read(lambda web3: web3.eth.get_transaction_count(address, tag)))

    async def balance(self, address: str) -> int:
        """Wei of POL."""
        return int(await self._read(lambda web3: web3.eth.get_balance(address)))

    async def code(self, address: str) -> bytes:
        return bytes(await self._read(lambda web3: web3.eth.get_code(address)))

    async def fees(self) -> Fees:
        """What a transaction should offer now."""
        history = await self._read(lambda web3: web3.eth.fee_history(1, "latest", [50]))
        tip = await self._read(lambda web3: web3.eth.max_priority_fee)
        return polygon_fees(int(history["baseFeePerGas"][-1]), int(tip))

    # -- transactions ---------------------------------------------------------------------------------------------

    async def send(self, transaction: Transaction) -> None:
        """Broadcast, once. Raises NodeRefused with the node's text; VenueUnavailable: it may have arrived."""
        web3 = await self._node()
        await self._ask(web3.eth.send_raw_transaction(transaction.raw))

    async def receipt(self, transaction_hash: str) -> Receipt | None:
        """What became of a transaction; None while it is not mined, as far as this node knows."""
        from web3.exceptions import TransactionNotFound

        try:
            found = await self._read(lambda web3: web3.eth.get_transaction_receipt(transaction_hash))
        except TransactionNotFound:
            return None
        return Receipt(
            hash=transaction_hash,
            ok=found["status"] == 1,
            block=int(found["blockNumber"]),
            gas_cost=int(found["gasUsed"]) * int(found["effectiveGasPrice"]),
            logs=tuple(
                Log(str(log["address"]).lower(), tuple(bytes(topic) for topic in log["topics"]), bytes(log["data"]))
                for log in found["logs"]
            ),
        )

    async def knows(self, transaction_hash: str) -> bool:
        """Whether the node has the transaction, mined or waiting."""
        from web3.exceptions import TransactionNotFound

        try:
            await self._read(lambda web3: web3.eth.get_transaction(transaction_hash))
        except TransactionNotFound:
            return False
        return True


def _client_timeout(seconds: float) -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=seconds, connect=seconds / 2)


def _reason(error: Exception) -> str:
    text = str(getattr(error, "message", None) or error)
    for prefix in ("execution reverted: ", "execution reverted", "Reverted "):
        text = text.removeprefix(prefix)
    return "".join(char for char in text if char.isprintable()).strip()[:200]


def _node_error(host: str, error: Any) -> PmkitError:
    answer = error.rpc_response or {}
    found = answer.get("error") if isinstance(answer, dict) else None
    text = str(found.get("message", "")) if isinstance(found, dict) else str(found or error)
    text = "".join(char for char in text if char.isprintable())[:300]
    lower = text.lower()
    if any(words in lower for words in _UNKNOWN_BLOCK) and "method" not in lower:
        return NodeLags(f"the Polygon node {host} does not have the block yet ({text})")
    if "rate limit" in lower or "too many requests" in lower:
        return VenueUnavailable(f"the Polygon node {host} refuses for its rate limit ({text})", 429)
    if "revert" in lower:
        return CallReverted(text.removeprefix("execution reverted").lstrip(": "))
    return NodeRefused(host, text)
