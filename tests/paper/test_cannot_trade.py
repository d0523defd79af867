"""From a dry-run on real market data nothing is reachable that could sign an order or send one."""

import types
from collections import deque
from collections.abc import Iterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pmkit.clock import SystemClock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, NotSent
from pmkit.exchanges.kalshi.auth import HandshakeSigner, Signer
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.polymarket import auth as polymarket_auth
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.orders import OrderSigner
from pmkit.http import HttpSession

PEM = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
NOW_MS = 1_795_176_000_000
CAN_TRADE = (Signer, OrderSigner, polymarket_auth.Signer, polymarket_auth.Credentials)


def parts(thing: object) -> Iterator[object]:
    """What an object holds: attributes, slots, items, closures, bound objects. Not modules, classes and globals."""
    if isinstance(thing, Mapping):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        yield from thing
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        yield from (cell.cell_contents for cell in thing.__closure__ or ())
    else:
        yield from getattr(thing, "__dict__", {}).values()
        for kind in type(thing).__mro__:
            for name in getattr(kind, "__slots__", ()):
                if isinstance(name, str) and hasattr(thing, name):
                    yield getattr(thing, name)


def reachable(start: object) -> list[object]:
    seen: dict[int, object] = {}
    todo = [start]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | types.ModuleType | None):
            continue
        seen[id(thing)] = thing
        todo.extend(parts(thing))
    return list(seen.values())


@pytest.fixture
async def dry_runs():
    clock = SystemClock()
    signer = HandshakeSigner.from_key("338f1187-198f-4502-b5d9-f0123e13a421", PEM)
    runs = [
        PaperExchange(
            PolymarketMarketData(Endpoints(), clock, signer=polymarket_auth.HandshakeSigner("key", "c2VjcmV0", "pass"))
        ),
        PaperExchange(KalshiMarketData(Endpoints(), clock, signer=signer)),
    ]
    yield runs
    for run in runs:
        await run.close()


async def test_the_walk_finds_what_it_looks_for():
    signer = Signer.from_key("338f1187-198f-4502-b5d9-f0123e13a421", PEM)
    assert signer in reachable([{"deep": lambda: signer}])


async def test_no_signer_is_reachable_but_that_of_the_handshake(dry_runs):
    for run in dry_runs:
        found = reachable(run)
        assert len(found) > 50
        held = [thing for thing in found if isinstance(thing, CAN_TRADE) and not isinstance(thing, HandshakeSigner)]
        # The handshake's signer may hold a key, in a place of its own that signs one path only.
        inside = {id(part) for thing in found if isinstance(thing, HandshakeSigner) for part in reachable(thing)}
        assert [type(thing) for thing in held if id(thing) not in inside] == []


async def test_the_handshakes_signer_signs_nothing_else(dry_runs):
    (signer,) = (thing for thing in reachable(dry_runs[1]) if isinstance(thing, HandshakeSigner))
    assert signer.headers("GET", "/trade-api/ws/v2", NOW_MS)
    for method, path in (
        ("POST", "/trade-api/v2/portfolio/events/orders"),
        ("GET", "/trade-api/v2/portfolio/balance"),
        ("POST", "/trade-api/ws/v2"),
        ("GET", "/trade-api/ws/v2/../../v2/portfolio/balance"),
    ):
        with pytest.raises(ConfigError, match="cannot trade"):
            signer.headers(method, path, NOW_MS)


async def test_every_session_has_a_list_of_reads_and_lets_nothing_else_through(dry_runs):
    for run in dry_runs:
        sessions = [thing for thing in reachable(run) if isinstance(thing, HttpSession)]
        assert sessions
        for session in sessions:
            assert session._allow is not None
            assert all(method == "GET" or pattern.pattern == "/books" for method, pattern in session._allow)
            for method, path in (("POST", "/order"), ("DELETE", "/order"), ("POST", "/portfolio/events/orders")):
                with pytest.raises(NotSent, match="not on the allow-list"):
                    await session.request(method, path)
