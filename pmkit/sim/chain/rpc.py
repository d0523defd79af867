"""JSON-RPC of the chain over HTTP, as a public node of Polygon answers it, with the faults of one.

Faults by name on `Faults.arm`: `raw_answer_lost` (the transaction is taken, the connection breaks), `raw_request_lost`
(it breaks before). `down` breaks every connection; `lag` answers reads as of so many blocks ago, as a balancer does,
for `lag_calls` more calls where that is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from eth.abc import SignedTransactionAPI

from pmkit.sim.chain.machine import CHAIN_ID, GAS_LIMIT, GWEI, Block, Machine, Receipt, Refused, Reverted
from pmkit.sim.faults import Faults
from pmkit.sim.server import answer

Json = dict[str, Any]


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(message)


def _hex(number: int) -> str:
    return hex(number)


def _bytes(data: bytes) -> str:
    return "0x" + data.hex()


def _raw(text: object) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise RpcError(-32602, "invalid argument: hex string expected")
    try:
        return bytes.fromhex(text[2:])
    except ValueError as error:
        raise RpcError(-32602, "invalid argument: hex string expected") from error


class ChainRpc:
    """The handler of one address. `suggested_tip` is what the node names; `calls` counts methods."""

    def __init__(self, machine: Machine, faults: Faults) -> None:
        self.machine = machine
        self.suggested_tip = GWEI
        self.chain_id = CHAIN_ID
        self.down = False
        self.lag = 0
        self.lag_calls: int | None = None
        self.calls: Counter[str] = Counter()
        self._faults = faults
        self._methods: dict[str, Callable[[list[Any]], object]] = {
            "eth_chainId": lambda _: _hex(self.chain_id),
            "net_version": lambda _: str(self.chain_id),
            "web3_clientVersion": lambda _: "bor/v2.2.9-local",
            "eth_blockNumber": lambda _: _hex(self._head.number),
            "eth_syncing": lambda _: False,
            "eth_gasPrice": lambda _: _hex(self.machine.base_fee + max(self.suggested_tip, self.machine.market_tip)),
            "eth_maxPriorityFeePerGas": lambda _: _hex(self.suggested_tip),
            "eth_feeHistory": self._fee_history,
            "eth_getBalance": lambda p: _hex(self._state(p[1:]).get_balance(_raw(p[0]))),
            "eth_getCode": lambda p: _bytes(self._state(p[1:]).get_code(_raw(p[0]))),
            "eth_getStorageAt": lambda p: _bytes(
                self._state(p[2:]).get_storage(_raw(p[0]), int(p[1], 16)).to_bytes(32)
            ),
            "eth_getTransactionCount": self._nonce,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getBlockByNumber": lambda p: self._block_json(self._block(p[0])),
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """POST with one call or a list of them."""
        if self.down:
            self._reset(request)
        try:
            body = msgspec.json.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return answer({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "parse error"}})
        calls = body if isinstance(body, list) else [body]
        sends = any(isinstance(call, dict) and call.get("method") == "eth_sendRawTransaction" for call in calls)
        if sends and self._faults.take("raw_request_lost"):
            self._reset(request)
        found = [self._one(call) for call in calls]
        if sends and self._faults.take("raw_answer_lost"):
            self._reset(request)
        return answer(found if isinstance(body, list) else found[0])

    @staticmethod
    def _reset(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the node is gone on purpose")

    def _one(self, call: Any) -> Json:
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "invalid request"}}
        method, params = call["method"], call.get("params") or []
        self.calls[method] += 1
        if self.lag and self.lag_calls is not None:
            self.lag_calls -= 1
            if self.lag_calls < 0:
                self.lag, self.lag_calls = 0, None
        head = {"jsonrpc": "2.0", "id": call.get("id")}
        handler = self._methods.get(method)
        try:
            if handler is None:
                raise RpcError(-32601, f"the method {method} does not exist/is not available")
            return head | {"result": handler(params)}
        except Refused as error:
            return head | {"error": {"code": error.code, "message": error.message}}
        except Reverted as error:
            text = "execution reverted" + (f": {error.reason}" if error.reason else "")
            return head | {"error": {"code": 3, "message": text, "data": _bytes(error.data)}}
        except RpcError as error:
            extra = {} if error.data is None else {"data": error.data}
            return head | {"error": {"code": error.code, "message": error.message} | extra}
        except (IndexError, TypeError, ValueError) as error:
            return head | {"error": {"code": -32602, "message": f"invalid argument: {error}"}}

    # ---- blocks

    @property
    def _head(self) -> Block:
        return self.machine.blocks[max(0, len(self.machine.blocks) - 1 - self.lag)]

    def _block(self, tag: object) -> Block:
        if tag in ("latest", "pending", "safe", "finalized", None):
            return self._head
        if tag == "earliest":
            return self.machine.blocks[0]
        number = int(str(tag), 16)
        if not 0 <= number <= self._head.number:
            raise RpcError(-32000, "header not found")
        return self.machine.blocks[number]

    def _state(self, params: list[Any]) -> Any:
        return self.machine.state(self._block(params[0] if params else "latest"))

    def _block_json(self, block: Block) -> Json:
        return {
            "number": _hex(block.number),
            "hash": _bytes(block.hash),
            "parentHash": _bytes(block.parent),
            "timestamp": _hex(block.timestamp),
            "baseFeePerGas": _hex(block.base_fee),
            "gasLimit": _hex(GAS_LIMIT),
            "gasUsed": _hex(sum(receipt.gas_used for receipt in block.receipts)),
            "miner": _bytes(bytes(20)),
            "extraData": _bytes(bytes(97)),  # longer than Ethereum's, as on every proof-of-authority chain
            "logsBloom": _bytes(bytes(256)),
            "difficulty": "0x1",
            "nonce": _bytes(bytes(8)),
            "mixHash": _bytes(bytes(32)),
            "sha3Uncles": _bytes(bytes(32)),
            "stateRoot": _bytes(block.root),
            "receiptsRoot": _bytes(bytes(32)),
            "transactionsRoot": _bytes(bytes(32)),
            "size": "0x400",
            "uncles": [],
            "transactions": [_bytes(receipt.transaction.hash) for receipt in block.receipts],
        }

    def _fee_history(self, params: list[Any]) -> Json:
        count = max(1, int(str(params[0]), 16) if isinstance(params[0], str) else params[0])
        newest = self._block(params[1])
        oldest = max(0, newest.number - count + 1)
        blocks = self.machine.blocks[oldest : newest.number + 1]
        percentiles = params[2] if len(params) > 2 else []
        return {
            "oldestBlock": _hex(oldest),
            "baseFeePerGas": [_hex(block.base_fee) for block in blocks] + [_hex(self.machine.base_fee)],
            "gasUsedRatio": [0.5] * len(blocks),
            "reward": [[_hex(self.suggested_tip)] * len(percentiles) for _ in blocks],
        }

    # ---- accounts and calls

    def _nonce(self, params: list[Any]) -> str:
        tag = params[1] if len(params) > 1 else "latest"
        if self.lag:
            return _hex(self.machine.nonce(_raw(params[0]), block=self._head))
        return _hex(self.machine.nonce(_raw(params[0]), pending=tag == "pending"))

    def _fields(self, params: list[Any]) -> tuple[bytes, bytes, bytes, int, Block]:
        call = params[0]
        data = _raw(call.get("data") or call.get("input") or "0x")
        sender = _raw(call.get("from") or _bytes(bytes(20)))
        block = self._block(params[1] if len(params) > 1 else "latest")
        return _raw(call["to"]), data, sender, int(call.get("value") or "0x0", 16), block

    def _call(self, params: list[Any]) -> str:
        return _bytes(self.machine.call(*self._fields(params)))

    def _estimate(self, params: list[Any]) -> str:
        return _hex(self.machine.estimate(*self._fields(params)))

    # ---- transactions

    def _send(self, params: list[Any]) -> str:
        return _bytes(self.machine.submit(_raw(params[0])))

    def _transaction(self, params: list[Any]) -> Json | None:
        key = _raw(params[0])
        receipt = self._seen(key)
        if receipt is not None:
            block = self.machine.blocks[receipt.block]
            where: Json = {
                "blockNumber": _hex(block.number),
                "blockHash": _bytes(block.hash),
                "transactionIndex": _hex(receipt.index),
            }
            return _transaction_json(receipt.transaction) | where
        waiting = self.machine.pool.get(key)
        nowhere = {"blockNumber": None, "blockHash": None, "transactionIndex": None}
        return None if waiting is None else _transaction_json(waiting) | nowhere

    def _seen(self, key: bytes) -> Receipt | None:
        receipt = self.machine.receipts.get(key)
        return None if receipt is None or receipt.block > self._head.number else receipt

    def _receipt(self, params: list[Any]) -> Json | None:
        receipt = self._seen(_raw(params[0]))
        if receipt is None:
            return None
        block = self.machine.blocks[receipt.block]
        transaction = receipt.transaction
        return {
            "transactionHash": _bytes(transaction.hash),
            "transactionIndex": _hex(receipt.index),
            "blockNumber": _hex(block.number),
            "blockHash": _bytes(block.hash),
            "from": _bytes(transaction.sender),
            "to": _bytes(transaction.to),
            "status": _hex(int(receipt.ok)),
            "gasUsed": _hex(receipt.gas_used),
            "cumulativeGasUsed": _hex(receipt.gas_used),
            "effectiveGasPrice": _hex(receipt.price),
            "contractAddress": None,
            "type": "0x2",
            "logsBloom": _bytes(bytes(256)),
            "logs": [
                {
                    "address": _bytes(log.address),
                    "topics": [_bytes(topic.to_bytes(32)) for topic in log.topics],
                    "data": _bytes(log.data),
                    "blockNumber": _hex(block.number),
                    "blockHash": _bytes(block.hash),
                    "transactionHash": _bytes(transaction.hash),
                    "transactionIndex": _hex(receipt.index),
                    "logIndex": _hex(number),
                    "removed": False,
                }
                for number, log in enumerate(receipt.logs)
            ],
        }


def _transaction_json(transaction: SignedTransactionAPI) -> Json:
    return {
        "hash": _bytes(transaction.hash),
        "type": "0x2",
        "chainId": _hex(CHAIN_ID),
        "nonce": _hex(transaction.nonce),
        "from": _bytes(transaction.sender),
        "to": _bytes(transaction.to),
        "value": _hex(transaction.value),
        "gas": _hex(transaction.gas),
        "input": _bytes(transaction.data),
        "maxFeePerGas": _hex(transaction.max_fee_per_gas),
        "maxPriorityFeePerGas": _hex(transaction.max_priority_fee_per_gas),
        "gasPrice": _hex(transaction.max_fee_per_gas),
        "accessList": [],
        "v": "0x0",
        "r": "0x1",
        "s": "0x1",
    }
