"""Who owns what: wallets, their pUSD and shares, what is held back, and the ledger of every movement.

Amounts are base units (1e-6 dollars and shares). Only mined trades move money; what a matched trade will take is held
back until then. Nothing is made or lost: a pair of both outcomes is one dollar, so at any time
`sum(cash) + fees + collateral` is what was paid in, and each outcome of a market has as many shares as the market has
collateral. The background traders are one account, HOUSE, that may owe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coincurve import PrivateKey

from pmkit.sim.polymarket.auth import ApiKey, ApiKeys
from pmkit.sim.polymarket.signatures import CTF_EXCHANGE, EXCHANGE_V3, NEG_RISK_EXCHANGE, address_of
from pmkit.sim.polymarket.wallets import WalletType, deposit_of, wallet_of
from pmkit.sim.world import World

HOUSE = "house"
UNLIMITED = 2**256 - 1
FUNDS = 10_000_000_000

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of one wallet; signed amounts, `cash` without and `fee` beside it (always >= 0)."""

    at_ms: int
    wallet: str
    kind: str
    token: str
    shares: int
    cash: int
    fee: int = 0
    order_id: str = ""
    trade_id: str = ""
    price: int = 0


@dataclass(slots=True)
class Account:
    """A wallet. `cash` and `shares` are what the chain says; `pending_*` is promised to trades that are not mined.

    `known` False is a balance that the venue has not looked up yet: it counts as nothing until an update is asked for.
    """

    wallet: str
    owner: str
    kind: WalletType
    cash: int = 0
    shares: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    pending_cash: int = 0
    pending_shares: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cash_allowances: dict[str, int] = field(default_factory=dict)
    share_allowances: dict[str, int] = field(default_factory=dict)
    session_keys: set[str] = field(default_factory=set)
    known: bool = True
    allowed: bool = True

    def approve_all(self) -> None:
        """Let every exchange contract move everything."""
        for spender in (CTF_EXCHANGE, NEG_RISK_EXCHANGE, EXCHANGE_V3):
            self.cash_allowances[spender] = self.share_allowances[spender] = UNLIMITED

    def approve_none(self) -> None:
        """Take every approval away."""
        for spender in (CTF_EXCHANGE, NEG_RISK_EXCHANGE, EXCHANGE_V3):
            self.cash_allowances[spender] = self.share_allowances[spender] = 0


@dataclass(frozen=True, slots=True)
class TestAccount:
    """A funded account for bots and tests: what a user would put into `.env`."""

    __test__ = False

    private_key: str
    address: str
    signature_type: int
    funder: str
    api_key: ApiKey

    def __repr__(self) -> str:
        return f"TestAccount(address={self.address!r}, signature_type={self.signature_type}, funder={self.funder!r})"

    def json(self) -> dict[str, object]:
        """All of it, for the line that a parent process reads."""
        return {
            "private_key": self.private_key,
            "address": self.address,
            "signature_type": self.signature_type,
            "funder": self.funder,
            "api_key": self.api_key.key,
            "api_secret": self.api_key.secret,
            "api_passphrase": self.api_key.passphrase,
        }


class Accounts:
    """All wallets of the venue and the ledger."""

    def __init__(self, world: World, keys: ApiKeys) -> None:
        self._world = world
        self._keys = keys
        self._by_wallet: dict[str, Account] = {}
        self.house = Account(HOUSE, HOUSE, WalletType.EOA)
        self.ledger: list[Entry] = []
        self.noted: list[Callable[[Entry], None]] = []
        self.fees = 0
        self.paid_in = 0
        self.collateral: dict[str, int] = defaultdict(int)

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_wallet.values())

    # ---- wallets

    def make(self, kind: WalletType, name: str = "test", cash: int = FUNDS) -> TestAccount:
        """A funded and approved account with a key of its own; a function of the seed, the kind and the name."""
        secret = 1 + self._world.bits("polymarket account", name, int(kind), size=32) % (_ORDER - 1)
        private = PrivateKey.from_int(secret)
        owner = address_of(private.public_key)
        account = self.open(owner, kind)
        account.approve_all()
        self.deposit(account, cash)
        return TestAccount(f"0x{secret:064x}", owner, int(kind), account.wallet, self._keys.make(owner))

    def open(self, owner: str, kind: WalletType, *, wallet: str | None = None) -> Account:
        """The wallet of an owner, made empty and without approvals where it is new."""
        wallet = wallet or wallet_of(owner, kind)
        account = self._by_wallet.get(wallet.lower())
        if account is None:
            account = self._by_wallet[wallet.lower()] = Account(wallet, owner, kind)
            account.approve_none()
        return account

    def find(self, wallet: str) -> Account | None:
        """By address, in any capitals."""
        return self._by_wallet.get(wallet.lower())

    def of_owner(self, owner: str, kind: WalletType) -> Account | None:
        """The wallet an owner has for a signature type, None where nothing is there yet."""
        found = self.find(wallet_of(owner, kind))
        if found is None and kind is WalletType.DEPOSIT:
            found = self.find(deposit_of(owner, beacon=False))
        return found

    def wallets_of(self, owner: str) -> list[Account]:
        """Every wallet of an owner."""
        return [account for account in self if account.owner == owner]

    # ---- money that comes and goes

    def _note(self, entry: Entry) -> None:
        self.ledger.append(entry)
        for listener in self.noted:
            listener(entry)

    def deposit(self, account: Account, cash: int) -> None:
        """Pay in, or with a negative amount out."""
        account.cash += cash
        self.paid_in += cash
        self._note(Entry(self._world.clock.now_ms(), account.wallet, "DEPOSIT", "", 0, cash))

    def split(self, account: Account, condition: str, tokens: Iterable[str], amount: int) -> None:
        """Turn cash into as many shares of each outcome."""
        account.cash -= amount
        self.collateral[condition] += amount
        now = self._world.clock.now_ms()
        self._note(Entry(now, account.wallet, "SPLIT", "", 0, -amount))
        for token in tokens:
            account.shares[token] += amount
            self._note(Entry(now, account.wallet, "SPLIT", token, amount, 0))

    def redeem(self, account: Account, condition: str, payouts: dict[str, int]) -> int:
        """Burn all shares of a resolved market; `payouts` are base units of a dollar per whole share (1e6 or 0).

        Returns the cash.
        """
        total = 0
        now = self._world.clock.now_ms()
        for token, payout in payouts.items():
            burned = account.shares[token] - account.pending_shares[token]
            if burned <= 0:
                continue
            cash = burned * payout // 1_000_000
            account.shares[token] -= burned
            account.cash += cash
            total += cash
            self._note(Entry(now, account.wallet, "REDEEM", token, -burned, cash))
        self.collateral[condition] -= total
        return total

    def move(self, account: Account, entry: Entry) -> None:
        """A mined trade's leg."""
        account.cash += entry.cash - entry.fee
        account.shares[entry.token] += entry.shares
        self.fees += entry.fee
        self._note(entry)

    def as_of(self, account: Account, token: str, at_ms: int) -> int:
        """What a wallet had of a token ("": pUSD) at a moment, from the ledger."""
        wallet = account.wallet
        rows = (row for row in self.ledger if row.at_ms <= at_ms and row.wallet == wallet)
        if not token:
            return sum(row.cash - row.fee for row in rows)
        return sum(row.shares for row in rows if row.token == token)

    # ---- truth for tests

    def total_cash(self) -> int:
        """Everything in pUSD, the house's included."""
        return self.house.cash + sum(account.cash for account in self)

    def total_shares(self, token: str) -> int:
        """Every share of a token, the house's (which may be negative) included."""
        return self.house.shares[token] + sum(account.shares[token] for account in self)

    def position(self, wallet: str, token: str) -> int:
        """What the ledger says a wallet holds."""
        wallet = wallet.lower()
        return sum(row.shares for row in self.ledger if row.token == token and row.wallet.lower() == wallet)
