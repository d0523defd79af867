"""The local chain and relayer on loopback, with a redeemer on them. One chain serves a whole test run of a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from itertools import count

from pmkit.clock import SystemClock
from pmkit.exchanges.market import PriceGrid
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.chain import Chain
from pmkit.exchanges.polymarket.fees import CRYPTO_FALLBACK
from pmkit.exchanges.polymarket.redeem import Redeemer
from pmkit.exchanges.polymarket.redeem_types import RedeemPath, RedeemResult, Wallet
from pmkit.exchanges.polymarket.relayer import Relayer as RelayerClient
from pmkit.exchanges.polymarket.relayer_messages import BuilderKey, RelayerKey
from pmkit.exchanges.polymarket.transaction_sender import Patience
from pmkit.exchanges.polymarket.types import SIZE_STEP, VENUE, PolymarketMarket
from pmkit.exchanges.polymarket.wallets import SignatureType
from pmkit.exchanges.types import MarketStatus
from pmkit.sim.chain.machine import GWEI, MIN_TIP
from pmkit.sim.chain.rpc import ChainRpc
from pmkit.sim.polymarket.on_chain import Condition, PolymarketChain, read_contracts
from pmkit.sim.polymarket.relayer import Relayer
from pmkit.sim.polymarket.wallets import WalletType
from pmkit.sim.server import Venue
from tests.conftest import ROOT

CONTRACTS = ROOT / "tests" / "data" / "chain"
# Whatever a busy machine may take too long for is long, what a test waits out is short in that test's own.
QUICK = Patience(
    poll=0.02,
    replace_after=60.0,
    resend_after=0.1,
    give_up=120.0,
    taken_after=0.2,
    lag=30.0,
    relayer_poll=0.01,
    relayer_polls=20,
    submit_tries=4,
    submit_wait=0.02,
    watch=30.0,
)
_numbers = count(1)


@cache
def shared_chain() -> PolymarketChain:
    """Made once per process: a second for the import of the machine, nearly nothing for the contracts."""
    return PolymarketChain(SystemClock(), read_contracts(CONTRACTS))


def market_of(condition: Condition, *, swapped: bool = False) -> PolymarketMarket:
    """The market as pmkit's catalogue would give it. `swapped`: the venue listed Down first."""
    ids = tuple(str(one) for one in condition.ids)
    return PolymarketMarket(
        venue=VENUE,
        market_id=condition.condition_id,
        asset="BTC",
        interval="15m",
        title="t",
        outcomes=("UP", "DOWN"),
        token_ids=(ids[1], ids[0]) if swapped else (ids[0], ids[1]),
        open_ms=0,
        close_ms=900_000,
        grid=PriceGrid.uniform(Decimal("0.01")),
        min_size=Decimal(5),
        size_step=SIZE_STEP,
        fees=CRYPTO_FALLBACK,
        status=MarketStatus.CLOSED,
        slug=f"market-{condition.condition_id[2:10]}",
        protocol=condition.protocol,
        neg_risk=condition.neg_risk,
    )


class ChainVenue(Venue):
    """RPC and relayer on one port. Everything on the chain that a test changes is put back at its end."""

    def __init__(self) -> None:
        super().__init__("chain", SystemClock())
        self.chain = shared_chain()
        self.machine = self.chain.machine
        server = self.add_server("chain")
        self.server = server
        self.rpc = ChainRpc(self.machine, self.faults)
        self.other_rpc = ChainRpc(self.machine, self.faults)
        self.relayer = Relayer(server, self.chain, self.clock, self.faults)
        server.post("/rpc", self.rpc.handle)
        server.post("/other", self.other_rpc.handle)
        self.markets: dict[str, PolymarketMarket] = {}
        self._clients: list[Chain | RelayerClient] = []

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await super().close()
        self.machine.automine = True
        self.machine.market_tip = MIN_TIP
        self.machine.base_fee = 30 * GWEI
        self.machine.pool.clear()
        self.machine.mined.clear()

    # ---- what a test needs

    async def find(self, condition_id: str) -> PolymarketMarket:
        return self.markets[condition_id]

    def condition(self, *, protocol: str = "v1", neg_risk: bool = False, swapped: bool = False) -> Condition:
        condition = self.chain.ask(protocol=protocol, neg_risk=neg_risk)
        self.markets[condition.condition_id] = market_of(condition, swapped=swapped)
        return condition

    def user(self, kind: WalletType, *, pol: int = 1000 * 10**18, beacon: bool = True) -> User:
        return User(self, kind, pol, beacon)

    def reader(self, *paths: str) -> Chain:
        """A client of the node."""
        chain = Chain([self.server.url(path) for path in paths or ("/rpc",)], self.clock)
        self._clients.append(chain)
        return chain

    def relayer_client(self, user: User, key: RelayerKey | BuilderKey | None, patience: Patience) -> RelayerClient:
        given = key or RelayerKey(self.relayer.make_key(user.owner), user.owner)
        client = RelayerClient(self.server.url("/relayer"), self.clock, user.signer, given, self.reader(), patience)
        self._clients.append(client)
        return client


class User:
    """A key with a wallet of one kind on the chain, and a redeemer of its own."""

    def __init__(self, venue: ChainVenue, kind: WalletType, pol: int, beacon: bool) -> None:
        self.venue = venue
        self.key = f"0x{next(_numbers) + 10**30:064x}"
        self.signer = Signer(self.key)
        self.owner = self.signer.address
        self.kind = kind
        self.address = venue.chain.make_wallet(self.owner, kind, beacon=beacon, pol=pol)
        self.wallet = Wallet(self.address, SignatureType(int(kind)), self.owner)
        self._redeemer: Redeemer | None = None

    def redeemer(self, *paths: str, patience: Patience = QUICK, key: RelayerKey | BuilderKey | None = None) -> Redeemer:
        relayer = self.venue.relayer_client(self, key, patience)
        return Redeemer(
            self.venue.reader(*paths),
            self.venue.find,
            self.signer,
            self.venue.clock,
            relayer=relayer,
            patience=patience,
        )

    async def redeem(self, condition: Condition, patience: Patience = QUICK, **options: object) -> RedeemResult:
        """With one redeemer for all calls of this user, made by the first."""
        if self._redeemer is None:
            self._redeemer = self.redeemer(patience=patience)
        return await self._redeemer.redeem(condition.condition_id, self.wallet, **options)  # type: ignore[arg-type]

    def won(
        self, up: int = 5_000_000, down: int = 0, *, payouts: tuple[int, int] = (1, 0), **options: bool | str
    ) -> Condition:
        """A market of which this user holds shares, resolved and approved."""
        condition = self.venue.condition(**options)  # type: ignore[arg-type]
        self.venue.chain.give(self.address, condition, up, down)
        self.venue.chain.report(condition, payouts)
        self.venue.chain.approve(self.address, condition)
        return condition

    @property
    def cash(self) -> int:
        return self.venue.chain.cash(self.address)

    def shares(self, condition: Condition) -> tuple[int, int]:
        return self.venue.chain.shares(self.address, condition)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def chain_venue() -> AsyncIterator[ChainVenue]:
    async with ChainVenue() as venue:
        yield venue
        assert venue.failures == []


PATHS = {
    WalletType.EOA: RedeemPath.EOA,
    WalletType.PROXY: RedeemPath.PROXY,
    WalletType.SAFE: RedeemPath.SAFE,
    WalletType.DEPOSIT: RedeemPath.RELAYER,
}
