"""The relayer: signed actions of wallets, which it sends and pays for. Deposit wallets have no other way.

A submission is sent once; again only where a refusal proves that nothing was taken. Where the answer is lost, the chain
tells: an action carries its wallet's nonce, so that it can be executed once at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from pmkit.clock import Clock
from pmkit.endpoints import require_safe
from pmkit.errors import (
    AuthError,
    PmkitError,
    ProtocolChanged,
    RateLimited,
    RedeemRefused,
    VenueUnavailable,
)
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call, proxy_batch
from pmkit.exchanges.polymarket.chain import CallReverted, Chain, NodeRefused
from pmkit.exchanges.polymarket.contracts import PROXY_FACTORY
from pmkit.exchanges.polymarket.relayer_messages import (
    BATCH_SECONDS,
    SUBMIT_PATH,
    BuilderKey,
    NonceAnswer,
    Progress,
    Refusal,
    RelayerKey,
    RelayerState,
    RelayerType,
    Submitted,
    body_bytes,
    proxy_body,
    refusal_of,
    safe_body,
    wallet_body,
)
from pmkit.exchanges.polymarket.transaction_sender import Patience
from pmkit.exchanges.polymarket.wallets import SignatureType
from pmkit.http import HttpAnswer, HttpSession, Unanswered

_LOG = logging.getLogger("pmkit.polymarket")

TYPES: Final = {
    SignatureType.POLY_PROXY: RelayerType.PROXY,
    SignatureType.GNOSIS_SAFE: RelayerType.SAFE,
    SignatureType.POLY_1271: RelayerType.WALLET,
}
PROXY_GAS: Final = 200_000
"""Where the proxy factory's own estimate fails, as the official SDK has it."""


class Skipped(PmkitError):
    """The relayer looked first and says that there is nothing to redeem."""


class AnswerLost(PmkitError):
    """The submission may have been taken. `until_s`: epoch seconds after which it cannot be executed; None: open."""

    def __init__(self, reason: str, until_s: int | None) -> None:
        self.until_s = until_s
        super().__init__(reason)


class Relayer:
    """Submits for one owner. Raises ConfigError for an address that is not safe for keys."""

    def __init__(
        self,
        base_url: str,
        clock: Clock,
        signer: Signer,
        key: RelayerKey | BuilderKey,
        chain: Chain,
        patience: Patience,
    ) -> None:
        require_safe(base_url, "the Polymarket relayer")
        self._http = HttpSession(base_url, clock)
        self._clock = clock
        self._signer = signer
        self._key = key
        self._chain = chain
        self._patience = patience

    async def close(self) -> None:
        await self._http.close()

    async def nonce(self, kind: SignatureType) -> NonceAnswer:
        """The wallet's next nonce, and for a proxy the relay that will send it."""
        if kind is SignatureType.POLY_PROXY:
            path = "/relay-payload"
        else:
            path = "/v1/account/transactions/params"
        params = {"address": self._signer.address, "type": TYPES[kind].value}
        return (await self._get(path, params)).decode(NonceAnswer)

    async def submit(self, kind: SignatureType, wallet: str, calls: Sequence[Call], metadata: str) -> str:
        """Have the wallet make the calls, all or none. Returns the relayer's id.

        Raises Skipped, RedeemRefused (not taken, for the reason it gives), AuthError, NotSent, AnswerLost.
        """
        signed = await self._signed(kind, wallet, calls, metadata)
        nonce: int | None = None
        for attempt in range(self._patience.submit_tries):
            if attempt:
                await self._clock.io_sleep(self._patience.submit_wait)
            body, until_s = signed(nonce)
            answer = await self._post(body_bytes(body), until_s)
            if 200 <= answer.status < 300:
                try:
                    return answer.decode(Submitted).transaction_id
                except ProtocolChanged as error:
                    raise AnswerLost(str(error), until_s) from error
            if answer.status >= 500:
                raise AnswerLost(f"{answer.host} answered {answer.status}: {answer.excerpt}", until_s)
            refusal, fresh = refusal_of(answer.status, answer.excerpt)
            if refusal is Refusal.NONCE_USED:
                nonce = fresh
            elif refusal is Refusal.SKIPPED:
                raise Skipped(answer.excerpt)
            elif refusal is not Refusal.BUSY:
                self._refuse(answer, refusal)
            _LOG.info("polymarket: the relayer does not take it yet (%s)", answer.excerpt)
        raise RedeemRefused(
            "relayer_busy",
            f"{self._http.host} took nothing in {self._patience.submit_tries} attempts, since an action of this wallet "
            "is on its way: try again in some minutes",
        )

    async def _signed(
        self, kind: SignatureType, wallet: str, calls: Sequence[Call], metadata: str
    ) -> Callable[[int | None], tuple[dict[str, Any], int | None]]:
        """What makes a body, signed for a nonce (None: the relayer's), and until when it can be executed."""
        asked = await self.nonce(kind)
        gas = await self._proxy_gas(calls) if kind is SignatureType.POLY_PROXY else 0

        def make(fresh: int | None) -> tuple[dict[str, Any], int | None]:
            nonce = asked.nonce if fresh is None else fresh
            if kind is SignatureType.GNOSIS_SAFE:
                return safe_body(self._signer, wallet, calls, nonce, metadata), None
            if kind is SignatureType.POLY_PROXY:
                return proxy_body(self._signer, wallet, calls, nonce, asked.address, gas, metadata), None
            deadline = self._clock.now_ms() // 1000 + BATCH_SECONDS
            return wallet_body(self._signer, wallet, calls, nonce, deadline, metadata), deadline

        return make

    async def _proxy_gas(self, calls: Sequence[Call]) -> int:
        try:
            return await self._chain.estimate(proxy_batch(PROXY_FACTORY, calls), self._signer.address)
        except (CallReverted, NodeRefused, VenueUnavailable) as error:
            _LOG.info("polymarket: no estimate for the proxy (%s): %d gas", error, PROXY_GAS)
            return PROXY_GAS

    async def _post(self, body: bytes, until_s: int | None) -> HttpAnswer:
        headers = self._key.headers(self._clock.now_ms() // 1000, "POST", SUBMIT_PATH, body)
        headers["content-type"] = "application/json"
        try:
            return await self._http.request("POST", SUBMIT_PATH, body=body, headers=headers)
        except RateLimited as error:
            raise RedeemRefused("relayer_busy", str(error)) from error
        except Unanswered as error:
            raise AnswerLost(str(error), until_s) from error

    def _refuse(self, answer: HttpAnswer, refusal: Refusal) -> None:
        what = f"{answer.host} refuses ({answer.status}): {answer.excerpt or '(empty body)'}"
        if answer.status in (401, 403):
            raise AuthError(f"{what}; check the relayer or builder key, and that it belongs to {self._signer.address}")
        if refusal is Refusal.QUOTA:
            raise RedeemRefused("quota", f"{what}; builder keys have some 100 submissions a day, a relayer key more")
        raise RedeemRefused("relayer", what)

    async def progress(self, relayer_id: str) -> Progress:
        """Where a submission is. Raises as a query does."""
        return (await self._get(f"/v1/account/transactions/{relayer_id}")).decode(Progress)

    async def follow(self, relayer_id: str) -> Progress:
        """Ask until it has ended, or for as long as there is patience: then the last state that was seen."""
        seen = Progress(state=RelayerState.NEW.value)
        for _ in range(self._patience.relayer_polls):
            try:
                found = await self.progress(relayer_id)
            except PmkitError as error:  # it is on its way, whatever becomes of a question
                _LOG.warning("polymarket: %s; still waiting for relayer action %s", error, relayer_id)
            else:
                seen = found
                if found.state in (RelayerState.CONFIRMED, RelayerState.FAILED, RelayerState.INVALID):
                    break
                if found.state == RelayerState.MINED and found.transaction_hash:
                    break
            await self._clock.io_sleep(self._patience.relayer_poll)
        return seen

    async def _get(self, path: str, params: dict[str, str] | None = None) -> HttpAnswer:
        headers = self._key.headers(self._clock.now_ms() // 1000, "GET", path)
        return await self._http.get(path, params, headers)
