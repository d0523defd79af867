"""The chain itself: state, calls, a transaction pool with the rules and error texts of Polygon's nodes, blocks.

Execution is py-evm's; what is here is what a node adds. Everything is synchronous. A block is mined as soon as the pool
holds something that can go in (`automine`), or by `mine()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eth.abc import ComputationAPI, SignedTransactionAPI
from eth.constants import BLANK_ROOT_HASH
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.shanghai import ShanghaiVM
from eth.vm.message import Message
from eth_abi.abi import decode
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from pmkit.clock import Clock

CHAIN_ID = 137
GWEI = 10**9
MIN_TIP = 25 * GWEI
GAS_LIMIT = 30_000_000
NOBODY = bytes(20)
_ERROR = bytes.fromhex("08c379a0")
_VM = ShanghaiVM


class Refused(Exception):
    """A transaction that the node does not take, with its JSON-RPC error."""

    def __init__(self, message: str, code: int = -32000) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


class Reverted(Exception):
    """A call that reverted. `reason` is the text of `require`, as far as there is one."""

    def __init__(self, data: bytes, reason: str = "") -> None:
        self.data = data
        self.reason = reason or reason_of(data)
        super().__init__(self.reason)


def reason_of(data: bytes) -> str:
    """The text that a revert carries; "" where it carries none."""
    if data[:4] != _ERROR:
        return ""
    return str(decode(["string"], data[4:])[0])


@dataclass(frozen=True, slots=True)
class Log:
    """One event."""

    address: bytes
    topics: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction."""

    transaction: SignedTransactionAPI
    block: int
    index: int
    ok: bool
    gas_used: int
    price: int
    logs: tuple[Log, ...]
    reason: str


@dataclass(slots=True)
class Block:
    """A mined block. `root` is the state after it."""

    number: int
    timestamp: int
    base_fee: int
    root: bytes
    parent: bytes
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def hash(self) -> bytes:
        """As unique as a real one; not a hash of the same fields."""
        parts = (self.number, self.timestamp, self.base_fee)
        hashes = b"".join(receipt.transaction.hash for receipt in self.receipts)
        return keccak(b"".join(part.to_bytes(32) for part in parts) + self.root + self.parent + hashes)


class Machine:
    """One chain. `market_tip` is the least tip that gets into a block; `paused` keeps everything in the pool."""

    def __init__(self, clock: Clock, *, base_fee: int = 30 * GWEI) -> None:
        self._clock = clock
        self._db = AtomicDB()
        self.base_fee = base_fee
        self.market_tip = MIN_TIP
        self.automine = True
        self.pool: dict[bytes, SignedTransactionAPI] = {}
        self.receipts: dict[bytes, Receipt] = {}
        self.blocks: list[Block] = [Block(0, clock.now_ms() // 1000, base_fee, BLANK_ROOT_HASH, bytes(32))]
        self.mined: list[Callable[[Block], None]] = []
        self.broadcasts: deque[tuple[bytes, str]] = deque(maxlen=1000)

    # ---- state

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    def state(self, block: Block | None = None, *, timestamp: int | None = None) -> Any:
        """The state after a block. Changes to it stay where they are unless they are kept."""
        at = block or self.head
        context = ExecutionContext(
            coinbase=Address(NOBODY),
            timestamp=at.timestamp if timestamp is None else timestamp,
            block_number=BlockNumber(at.number + 1),
            difficulty=0,
            mix_hash=Hash32(bytes(32)),
            gas_limit=GAS_LIMIT,
            prev_hashes=(),
            chain_id=CHAIN_ID,
            base_fee_per_gas=self.base_fee,
        )
        return _VM.get_state_class()(self._db, context, at.root)

    def change(self, change: Callable[[Any], object]) -> None:
        """Change the state from outside, in a block of its own without transactions."""
        state = self.state()
        change(state)
        self._append(state, [])

    def place(self, address: bytes, code: bytes) -> None:
        """Put runtime code at an address."""
        self.change(lambda state: state.set_code(address, code))

    def construct(self, address: bytes, init_code: bytes) -> None:
        """Run a constructor, so that the contract comes to be at that address."""

        def run(state: Any) -> None:
            message = Message(
                GAS_LIMIT, Address(b""), Address(NOBODY), 0, b"", init_code, create_address=Address(address)
            )
            _checked(_class_of(state).apply_create_message(state, message, _context(state, NOBODY)))

        self.change(run)

    def fund(self, address: bytes, wei: int) -> None:
        """Set what an address has of the chain's own coin."""
        self.change(lambda state: state.set_balance(address, wei))

    def act(self, sender: bytes, to: bytes, data: bytes) -> bytes:
        """Have anybody make a call, without a signature and for free, in a block of its own. Raises Reverted."""
        answer = b""

        def run(state: Any) -> None:
            nonlocal answer
            answer = _checked(_message(state, sender, to, data, GAS_LIMIT, 0)).output

        self.change(run)
        return answer

    def call(self, to: bytes, data: bytes, sender: bytes = NOBODY, value: int = 0, block: Block | None = None) -> bytes:
        """`eth_call`. Raises Reverted."""
        return bytes(_checked(_message(self.state(block), sender, to, data, GAS_LIMIT, value)).output)

    def estimate(self, to: bytes, data: bytes, sender: bytes, value: int = 0, block: Block | None = None) -> int:
        """`eth_estimateGas`: what it used and a fifth, for the part that a call may not pass on. Raises Reverted."""
        done = _checked(_message(self.state(block), sender, to, data, GAS_LIMIT, value))
        calldata = sum(16 if byte else 4 for byte in data)
        used = 21_000 + calldata + GAS_LIMIT - done.get_gas_remaining()
        return int(used * 6 // 5)

    # ---- transactions

    def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction into the pool and give its hash. Raises Refused with the node's text."""
        try:
            transaction = _VM.get_transaction_builder().decode(raw)
            transaction.validate()
            sender = transaction.sender
        except Exception as error:
            raise Refused(f"rlp: cannot decode transaction: {type(error).__name__}", -32602) from error
        try:
            self._check(transaction, sender)
        except Refused as error:
            self.broadcasts.append((transaction.hash, error.message))
            raise
        self.broadcasts.append((transaction.hash, "taken"))
        self.pool = {
            key: other for key, other in self.pool.items() if (other.sender, other.nonce) != (sender, transaction.nonce)
        }
        self.pool[transaction.hash] = transaction
        if self.automine:
            self.mine()
        return bytes(transaction.hash)

    def _check(self, transaction: SignedTransactionAPI, sender: bytes) -> None:
        if transaction.hash in self.pool:
            raise Refused("already known")
        if transaction.chain_id != CHAIN_ID:
            raise Refused(f"invalid chain id for signer: have {transaction.chain_id} want {CHAIN_ID}")
        tip = transaction.max_priority_fee_per_gas
        if tip < MIN_TIP:
            raise Refused(f"transaction gas price below minimum: gas tip cap {tip}, minimum needed {MIN_TIP}")
        state = self.state()
        nonce = state.get_nonce(sender)
        if transaction.nonce < nonce:
            raise Refused(f"nonce too low: address 0x{sender.hex()}, tx: {transaction.nonce} state: {nonce}")
        if transaction.gas < transaction.intrinsic_gas:
            raise Refused(f"intrinsic gas too low: have {transaction.gas}, want {transaction.intrinsic_gas}")
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if (balance := state.get_balance(sender)) < cost:
            raise Refused(
                f"insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, "
                f"overshot {cost - balance}"
            )
        for other in self.pool.values():
            if (other.sender, other.nonce) == (sender, transaction.nonce) and not (
                transaction.max_fee_per_gas * 10 >= other.max_fee_per_gas * 11
                and tip * 10 >= other.max_priority_fee_per_gas * 11
            ):
                raise Refused("replacement transaction underpriced")

    def nonce(self, address: bytes, *, pending: bool = False, block: Block | None = None) -> int:
        """The next nonce, after what is mined or also after what waits in the pool without a gap."""
        nonce = int(self.state(block).get_nonce(address))
        waiting = {transaction.nonce for transaction in self.pool.values() if transaction.sender == address}
        while pending and nonce in waiting:
            nonce += 1
        return nonce

    def mine(self) -> Block:
        """A block with everything in the pool that pays enough."""
        timestamp = self._next_timestamp()
        state = self.state(timestamp=timestamp)
        receipts: list[Receipt] = []
        ready = True
        while ready:
            ready = False
            for transaction in sorted(self.pool.values(), key=lambda one: -one.max_priority_fee_per_gas):
                if self._pays(transaction) and state.get_nonce(transaction.sender) == transaction.nonce:
                    del self.pool[transaction.hash]
                    receipts.append(self._execute(state, transaction, len(receipts)))
                    ready = True
        return self._append(state, receipts, timestamp)

    def _pays(self, transaction: SignedTransactionAPI) -> bool:
        return (
            transaction.max_fee_per_gas >= self.base_fee
            and min(transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas - self.base_fee)
            >= self.market_tip
        )

    def _execute(self, state: Any, transaction: SignedTransactionAPI, index: int) -> Receipt:
        try:
            done = state.apply_transaction(transaction)
        except ValidationError as error:  # cannot be: the pool has checked it
            raise RuntimeError(f"the pool held a transaction that cannot be executed: {error}") from error
        used = transaction.gas - done.get_gas_remaining()
        used -= min(done.get_gas_refund(), used // 5)
        price = min(transaction.max_fee_per_gas, self.base_fee + transaction.max_priority_fee_per_gas)
        logs = () if done.is_error else tuple(Log(*entry) for entry in done.get_log_entries())
        reason = ""
        if done.is_error:
            reason = reason_of(bytes(done.output)) or type(done.error).__name__
        receipt = Receipt(transaction, self.head.number + 1, index, not done.is_error, int(used), price, logs, reason)
        self.receipts[transaction.hash] = receipt
        return receipt

    def _next_timestamp(self) -> int:
        return max(self.head.timestamp, self._clock.now_ms() // 1000)

    def _append(self, state: Any, receipts: list[Receipt], timestamp: int | None = None) -> Block:
        state.persist()
        head = self.head
        made = self._next_timestamp() if timestamp is None else timestamp
        block = Block(head.number + 1, made, self.base_fee, state.state_root, head.hash, receipts)
        self.blocks.append(block)
        gone = [key for key, one in self.pool.items() if state.get_nonce(one.sender) > one.nonce]
        for key in gone:
            del self.pool[key]
        for listener in self.mined:
            listener(block)
        return block


def _class_of(state: Any) -> Any:
    return state.computation_class


def _context(state: Any, origin: bytes) -> Any:
    return state.get_transaction_context_class()(gas_price=0, origin=origin)


def _message(state: Any, sender: bytes, to: bytes, data: bytes, gas: int, value: int) -> ComputationAPI:
    message = Message(gas, Address(to), Address(sender), value, data, state.get_code(to))
    done: ComputationAPI = _class_of(state).apply_message(state, message, _context(state, sender))
    return done


def _checked(done: ComputationAPI) -> ComputationAPI:
    if done.is_success:
        return done
    if isinstance(done.error, Revert):
        raise Reverted(bytes(done.output))
    raise Reverted(b"", type(done.error).__name__)
