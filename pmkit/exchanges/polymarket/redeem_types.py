"""The types of a redeem (wire): what a wallet holds of a market, what would be done, what came of it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.contracts import UNITS, redeemer_of
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.wallets import SignatureType

DUST: Final = Decimal("0.01")
"""pUSD. What pays less is reported and left alone: gas costs about as much, and no order could sell it."""


class RedeemPath(StrEnum):
    """Who sends it. The first three are transactions of the key's own address, which pays gas in POL."""

    EOA = "eoa"
    SAFE = "safe"
    PROXY = "proxy"
    RELAYER = "relayer"


class RedeemStatus(StrEnum):
    """What is proven, by the receipt and by balances that were read again."""

    SUCCESS = "success"
    """The shares are gone and the payout has arrived."""
    NO_EFFECT = "no_effect"
    """Nothing was redeemed by this call, and nothing of it is on its way."""
    UNVERIFIED = "unverified"
    """It may have been redeemed or may still be. Call `redeem` again later: it looks first."""


class RedeemCause(StrEnum):
    """Why it is not a plain success."""

    NONE = ""
    NOTHING_HELD = "nothing_held"
    ONLY_LOSERS = "only_losers"
    DUST = "dust"
    OTHER_WALLET = "other_wallet"
    """The shares are in another wallet of the same key."""
    ELSEWHERE = "elsewhere"
    """Somebody else redeemed them meanwhile: the venue's auto-redeem, another process."""
    REVERTED = "reverted"
    INNER_FAILED = "inner_failed"
    """A Safe's transaction worked, what it should do did not."""
    SILENT = "silent"
    """It went through and redeemed nothing."""
    RELAYER_FAILED = "relayer_failed"
    PENDING = "pending"
    """A transaction waits to be mined, or the relayer has not finished."""
    LOST_ANSWER = "lost_answer"
    """The relayer may have taken it; no answer came."""
    LAGGING = "lagging"
    """It was mined, but no node told the balances after it."""
    UNPAID = "unpaid"
    """The shares are gone, and another payout than the expected one arrived."""


class Holding(msgspec.Struct, frozen=True):
    """Shares of one outcome, and what they pay in pUSD (None while the market is not resolved)."""

    outcome: str
    token_id: str
    size: Decimal
    payout: Decimal | None = None

    @property
    def won(self) -> bool:
        """Whether it pays anything. A losing position is as "redeemable" to the venue as a winning one."""
        return self.payout is not None and self.payout > 0


class RedeemPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What `redeem` would do now. Nothing was sent.

    `payout`: pUSD. `cause` and `reason` say why nothing would be sent, where that is so. `gas` is in units of gas of
    all transactions, `gas_cost` in POL at most; both 0 where the relayer pays. `approval`: an approval is missing and
    would be sent first, or in the same batch.
    """

    condition_id: str
    market: str
    wallet: str
    signature_type: SignatureType
    path: RedeemPath
    resolved: bool
    holdings: tuple[Holding, ...]
    payout: Decimal
    approval: bool
    gas: int
    gas_cost: Decimal
    cause: RedeemCause = RedeemCause.NONE
    reason: str = ""

    def __bool__(self) -> bool:
        """Whether something would be redeemed."""
        return self.resolved and self.cause is RedeemCause.NONE


class RedeemResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a redeem; true only for a success.

    `payout`: pUSD that arrived. `expected`: pUSD that the shares were worth. `transactions`: hashes, newest last;
    `relayer_id`: the relayer's own. `gas_cost`: POL that was spent. `reason` says what happened and what to do.
    """

    status: RedeemStatus
    cause: RedeemCause
    reason: str
    condition_id: str
    market: str
    wallet: str
    path: RedeemPath
    expected: Decimal
    payout: Decimal = Decimal(0)
    transactions: tuple[str, ...] = ()
    relayer_id: str = ""
    gas_cost: Decimal = Decimal(0)

    def __bool__(self) -> bool:
        return self.status is RedeemStatus.SUCCESS


class Wallet(msgspec.Struct, frozen=True):
    """Where the shares are, and what kind of wallet that is. `owner` is the key's address; "" where it is not known."""

    address: str
    kind: SignatureType
    owner: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A market as a wallet has it at a block, in base units: `sizes` of shares and their `payouts` in the order of the
    outcomes, `cash` in pUSD. `cause` says why nothing is to be sent; then there are no calls.
    """

    market: PolymarketMarket
    wallet: Wallet
    path: RedeemPath
    block: int
    sizes: tuple[int, ...]
    payouts: tuple[int, ...]
    cash: int
    approved: bool
    calls: tuple[Call, ...]
    ids: tuple[int, ...]
    cause: RedeemCause
    reason: str

    @property
    def expected(self) -> Decimal:
        """pUSD that the shares to be redeemed are worth."""
        return units(sum(self.payouts))

    @property
    def token(self) -> str:
        """The ERC-1155 contract."""
        return redeemer_of(self.market.protocol, self.market.neg_risk)[0]


def units(amount: int) -> Decimal:
    """Base units as pUSD or shares."""
    return Decimal(amount) / UNITS
