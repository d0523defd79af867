"""Sends transactions of one key, one at a time, and waits for each: nonce, fees, replacement, what nodes answer.

A transaction's hash is known before it is sent, and only the same bytes are ever sent again. One that is not mined in
time is replaced at the same nonce with higher fees, so that at most one of them counts. A nonce that somebody else used
(another program with this key) proves that none of ours can be mined any more: `NonceTaken`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import PmkitError, RedeemRefused, VenueUnavailable
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.chain import CallReverted, Chain, NodeRefused
from pmkit.exchanges.polymarket.transactions import GWEI, Fees, Receipt, Transaction, sign_transaction

_LOG = logging.getLogger("pmkit.polymarket")

GAS_MARGIN: Final = (5, 4)
"""Estimates are raised by a quarter: the state changes until it is mined."""
MAX_FEE: Final = 5_000 * GWEI
"""What a unit of gas may cost at most, some 50 times the usual: a redeem is about 1.5 POL then. A node may be wrong."""
_SIGN_TRIES: Final = 5
_MINIMUM = re.compile(r"minimum needed (\d+)").search


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things are waited for, in wall seconds."""

    poll: float = 1.0
    replace_after: float = 30.0
    resend_after: float = 10.0
    give_up: float = 180.0
    """A transaction: afterwards it is reported as pending."""
    taken_after: float = 10.0
    """So long a used nonce without a receipt of ours is put down to a node that lags."""
    lag: float = 30.0
    """Balances after a mined transaction."""
    relayer_poll: float = 2.0
    relayer_polls: int = 100
    submit_tries: int = 10
    submit_wait: float = 2.0
    watch: float = 60.0
    """A submission whose answer was lost."""


class NonceTaken(PmkitError):
    """Another transaction of this key was mined in place of ours. Nothing of ours can be mined any more."""


@dataclass(slots=True)
class Flight:
    """One nonce and everything that was signed for it, newest last."""

    call: Call
    nonce: int
    attempts: list[Transaction] = field(default_factory=list)

    @property
    def hashes(self) -> tuple[str, ...]:
        return tuple(attempt.hash for attempt in self.attempts)


class TransactionSender:
    """`flights` holds what was sent and is not known to be mined, by the key it was sent under."""

    def __init__(self, chain: Chain, signer: Signer, clock: Clock, patience: Patience) -> None:
        self.lock = asyncio.Lock()
        self.flights: dict[str, Flight] = {}
        self._chain = chain
        self._signer = signer
        self._clock = clock
        self._patience = patience

    async def settle(self, key: str) -> Receipt | Flight | None:
        """An earlier transaction under that key: its receipt, or itself while it waits (it is waited for again).

        None where there is none, or somebody else used its nonce.
        """
        flight = self.flights.get(key)
        if flight is None:
            return None
        try:
            return await self._wait(key, flight)
        except NonceTaken:
            return None

    async def send(self, key: str, call: Call) -> Receipt | Flight:
        """Make a call and wait until it is mined: its receipt, or what is still waiting. Hold `lock` around it.

        Raises RedeemRefused (nothing was taken), CallReverted (it would revert, nothing was sent), NonceTaken.
        """
        gas = await self._chain.estimate(call, self._signer.address) * GAS_MARGIN[0] // GAS_MARGIN[1]
        fees = await self._chain.fees()
        flight = await self._first(key, call, gas, fees)
        return await self._wait(key, flight)

    async def _first(self, key: str, call: Call, gas: int, fees: Fees) -> Flight:
        """Broadcast under a nonce that is free. Nothing is waiting yet, so a refusal is final or signed anew."""
        for _ in range(_SIGN_TRIES):
            await self._check_funds(call, gas, fees)
            nonce = await self._chain.nonce(self._signer.address, pending=True)
            transaction = sign_transaction(self._signer, call, nonce=nonce, gas=gas, fees=fees)
            flight = self.flights[key] = Flight(call, nonce, [transaction])
            try:
                await self._chain.send(transaction)
                return flight
            except VenueUnavailable as error:
                # It may have arrived: from here on it is looked for, and only these bytes are sent again.
                _LOG.warning("polymarket: %s; %s is looked for", error, transaction.hash)
                return flight
            except CallReverted:
                del self.flights[key]
                raise
            except NodeRefused as error:
                text = error.text.lower()
                if "already known" in text:
                    return flight
                del self.flights[key]
                if "insufficient funds" in text:
                    raise RedeemRefused("no_gas", f"{self._signer.address}: {error.text}: send POL there") from error
                if "below minimum" in text or "fee per gas less than block base fee" in text:
                    fees = await self._above(error.text, fees)
                elif "nonce too low" in text or "replacement transaction underpriced" in text:
                    _LOG.info("polymarket: nonce %d is used by another transaction of this key: signing anew", nonce)
                    await self._clock.io_sleep(self._patience.poll)
                else:
                    raise RedeemRefused("node", str(error)) from error
        raise RedeemRefused(
            "blocked",
            f"{_SIGN_TRIES} attempts at {self._chain.host} found no free nonce for {self._signer.address}: another "
            "transaction of this key is waiting; let it be mined (or replace it in your wallet), then try again",
        )

    async def _above(self, text: str, fees: Fees) -> Fees:
        match = _MINIMUM(text)
        market = await self._chain.fees()
        tip = max(market.tip, fees.tip, int(match[1]) if match else 0)
        return Fees(max_fee=max(market.max_fee, fees.max_fee) + tip - fees.tip, tip=tip)

    async def _check_funds(self, call: Call, gas: int, fees: Fees) -> None:
        if fees.max_fee > MAX_FEE:
            raise RedeemRefused(
                "gas_price",
                f"{self._chain.host} asks for {fees.max_fee // GWEI} gwei, more than {MAX_FEE // GWEI}: wait, or use "
                "another node (POLYGON_RPC_URL)",
            )
        need = gas * fees.max_fee + call.value
        have = await self._chain.balance(self._signer.address)
        if have < need:
            raise RedeemRefused(
                "no_gas",
                f"{self._signer.address} has {have / 10**18:.6f} POL and gas may cost {need / 10**18:.6f}: send POL "
                "there (on Polygon), or use the relayer where the wallet can",
            )

    async def _wait(self, key: str, flight: Flight) -> Receipt | Flight:
        """Until one of the attempts is mined; replaces and re-sends meanwhile. A silent node changes nothing."""
        clock, patience = self._clock, self._patience
        end = clock.io_monotonic() + patience.give_up
        replace_at = clock.io_monotonic() + patience.replace_after
        resend_at = clock.io_monotonic() + patience.resend_after
        used_since: float | None = None
        while True:
            try:
                if (receipt := await self._mined(flight)) is not None:
                    self.flights.pop(key, None)
                    return receipt
                now = clock.io_monotonic()
                if await self._chain.nonce(self._signer.address, pending=False) > flight.nonce:
                    used_since = now if used_since is None else used_since
                    if now - used_since >= patience.taken_after:
                        self.flights.pop(key, None)
                        raise NonceTaken(
                            f"nonce {flight.nonce} of {self._signer.address} was used by a transaction that is not "
                            "pmkit's: does another program use this key?"
                        )
                elif now >= replace_at:
                    replace_at = now + patience.replace_after
                    await self._replace(flight)
                elif now >= resend_at:
                    resend_at = now + patience.resend_after
                    if not await self._chain.knows(flight.attempts[-1].hash):
                        await self._again(flight.attempts[-1])
            except (VenueUnavailable, NodeRefused) as error:
                _LOG.warning("polymarket: %s; still waiting for %s", error, flight.attempts[-1].hash)
            if clock.io_monotonic() >= end:
                return flight
            await clock.io_sleep(patience.poll)

    async def _mined(self, flight: Flight) -> Receipt | None:
        for attempt in reversed(flight.attempts):
            receipt = await self._chain.receipt(attempt.hash)
            if receipt is not None:
                return receipt
        return None

    async def _again(self, transaction: Transaction) -> None:
        """The same bytes once more."""
        try:
            await self._chain.send(transaction)
        except (NodeRefused, CallReverted) as error:
            _LOG.info("polymarket: %s sent again: %s", transaction.hash, error)

    async def _replace(self, flight: Flight) -> None:
        """The same call at the same nonce, dearer. A refusal leaves the earlier ones as they are."""
        last = flight.attempts[-1]
        fees = last.fees.raised(await self._chain.fees())
        if fees.max_fee > MAX_FEE:
            _LOG.warning("polymarket: %s waits, and a dearer one would be above %d gwei", last.hash, MAX_FEE // GWEI)
            return
        dearer = sign_transaction(self._signer, flight.call, nonce=flight.nonce, gas=last.gas, fees=fees)
        if await self._chain.balance(self._signer.address) < last.gas * fees.max_fee + flight.call.value:
            _LOG.warning("polymarket: %s waits, and there is no POL for a dearer one", last.hash)
            return
        flight.attempts.append(dearer)
        try:
            await self._chain.send(dearer)
            _LOG.info("polymarket: %s replaced %s at nonce %d", dearer.hash, last.hash, flight.nonce)
        except (NodeRefused, CallReverted) as error:
            _LOG.info("polymarket: %s was not taken: %s", dearer.hash, error)
