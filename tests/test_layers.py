"""Imports only go down. Every import of pmkit is read, also inside functions and under TYPE_CHECKING."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.lint.layers import (
    COMPOSITION,
    EXCEPTIONS,
    LAYER_OF,
    ROOT,
    SIM,
    WIRE,
    Import,
    imports,
    impure_calls,
    inside,
    layer_of,
    modules,
    problem,
)

TREE = Path(__file__).resolve().parent.parent / "pmkit"
MODULES = modules(TREE)


@cache
def edges() -> list[Import]:
    """Every import of pmkit."""
    return [
        edge
        for name, path in MODULES.items()
        for edge in imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py", set(MODULES))
    ]


def test_every_module_has_a_layer() -> None:
    missing = [name for name in MODULES if name != ROOT and layer_of(name) is None]
    assert not missing, f"give each a row in tests/lint/layers.py: {missing}"


def test_imports_go_down() -> None:
    assert len(edges()) > 50
    refused = [f"{edge.module}:{edge.line} imports {edge.target}: {why}" for edge in edges() if (why := problem(edge))]
    assert not refused, "\n".join(refused)


def test_wire_modules_do_no_io() -> None:
    wire = [name for name in MODULES if LAYER_OF.get(name) == WIRE]
    assert wire
    found = [
        f"{name}:{line} calls {call}()"
        for name in wire
        for line, call in impure_calls(MODULES[name].read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_exception_is_still_needed() -> None:
    used = {(edge.module, edge.target) for edge in edges()}
    assert set(EXCEPTIONS) <= used


# The check itself: each of these must be refused, each of the others let through.

KNOWN = {*LAYER_OF, SIM, f"{SIM}.matching", ROOT}
WIRE_FILE = "pmkit.exchanges.orderbook"
CLIENT_FILE = "pmkit.exchanges.kalshi.market_data"


def judge(module: str, source: str, is_package: bool = False) -> list[str]:
    return [why for edge in imports(source, module, is_package, KNOWN) if (why := problem(edge))]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (WIRE_FILE, "import asyncio"),
        (WIRE_FILE, "import logging"),
        (WIRE_FILE, "from pathlib import Path"),
        (WIRE_FILE, "import httpx"),
        (WIRE_FILE, "import urllib.request"),
        (WIRE_FILE, "from pmkit.clock import Clock"),
        (WIRE_FILE, "from pmkit import clock"),
        (WIRE_FILE, "from pmkit.streams import Subscription"),
        (WIRE_FILE, "from pmkit.exchanges.base import MarketData"),
        (WIRE_FILE, "from ..http import Session"),
        (WIRE_FILE, "from . import base"),
        (WIRE_FILE, "def f():\n    import websockets"),
        (WIRE_FILE, "if TYPE_CHECKING:\n    from pmkit.bot.base import BaseBot"),
        (WIRE_FILE, "try:\n    import pandas\nexcept ImportError:\n    pass"),
        ("pmkit.clock", "from pmkit.exchanges.types import Side"),
        ("pmkit.errors", "from pmkit.exchanges.types import Intent"),
        ("pmkit.http", "from pmkit.exchanges.base import MarketData"),
        (CLIENT_FILE, "from pmkit.exchanges.polymarket.types import PolymarketMarket"),
        (CLIENT_FILE, "from ..polymarket import types"),
        (CLIENT_FILE, "from pmkit.exchanges.paper.exchange import PaperExchange"),
        (CLIENT_FILE, "from pmkit.bot.base import BaseBot"),
        (CLIENT_FILE, "from pmkit import Side"),
        (CLIENT_FILE, "import pmkit"),
        (CLIENT_FILE, "def f():\n    from pmkit.sim import matching"),
        (CLIENT_FILE, "import importlib\nimportlib.import_module('pmkit.bot.run')"),
        (CLIENT_FILE, "import importlib\nimportlib.import_module(name)"),
        ("pmkit.exchanges.base", "from pmkit.exchanges.kalshi.types import KalshiMarket"),
        ("pmkit.exchanges.paper.exchange", "from pmkit.exchanges.kalshi.fees import fee"),
        ("pmkit.bot.base", "from pmkit.sim import matching"),
        ("pmkit.bot.run", "import pmkit.sim"),
        ("pmkit.bot.run", "def f():\n    from pmkit.replay.session import replay"),
        (f"{SIM}.replay.session", "from pmkit.recording.recorder import current"),
        (f"{SIM}.matching", "from pmkit.exchanges.orderbook import OrderBook"),
        (f"{SIM}.kalshi.messages", "from pmkit.exchanges.kalshi.messages import decode"),
        (f"{SIM}.matching", "from pmkit.http import Session"),
        ("pmkit.brand_new", "from pmkit.errors import PmkitError"),
        ("pmkit.bot.base", "from pmkit.brand_new import x"),
    ],
)
def test_bad_imports_are_refused(module: str, source: str) -> None:
    known = KNOWN | {"pmkit.brand_new"}
    assert [edge for edge in imports(source, module, False, known) if problem(edge)], f"{module} may do: {source}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (WIRE_FILE, "from decimal import Decimal\nimport msgspec\nfrom urllib.parse import urlencode"),
        (WIRE_FILE, "from pmkit.errors import InvalidOrder\nfrom pmkit.exchanges.types import Side"),
        (WIRE_FILE, "from .types import Side\nfrom . import numbers"),
        ("pmkit.errors", "if TYPE_CHECKING:\n    from pmkit.exchanges.types import Intent"),
        ("pmkit.http", "def f():\n    import httpx"),
        (CLIENT_FILE, "import asyncio\nfrom pmkit.clock import Clock\nfrom pmkit.exchanges.kalshi import messages"),
        (CLIENT_FILE, "from .types import KalshiMarket\nfrom ..base import MarketData"),
        ("pmkit.exchanges.paper.exchange", "from pmkit.exchanges.base import BaseExchange, MarketData"),
        ("pmkit.bot.run", "def f():\n    from pmkit.sim import matching"),
        ("pmkit.bot.run", "from pmkit.exchanges.kalshi.market_data import KalshiMarketData"),
        (f"{SIM}.matching", "import aiohttp\nfrom pmkit.clock import Clock\nfrom pmkit.sim import matching"),
    ],
)
def test_good_imports_pass(module: str, source: str) -> None:
    assert judge(module, source) == []


def test_relative_imports_of_a_package() -> None:
    source = "from . import types\nfrom .types import Side\nfrom .. import errors"
    found = imports(source, "pmkit.exchanges", True, KNOWN)
    assert [edge.target for edge in found] == ["pmkit.exchanges.types", "pmkit.exchanges.types", "pmkit.errors"]


def test_where_an_import_stands() -> None:
    source = "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\nasync def f():\n    import d\n"
    assert imports(source, "pmkit.bot.run", False, set()) == [
        Import("pmkit.bot.run", "a", 1, False, False),
        Import("pmkit.bot.run", "b", 3, True, False),
        Import("pmkit.bot.run", "c", 5, False, False),
        Import("pmkit.bot.run", "d", 7, False, True),
    ]


def test_impure_calls_are_seen() -> None:
    assert impure_calls("def f():\n    print(open('x'))\n") == [(2, "print"), (2, "open")]
    assert impure_calls("book.open(1)\n") == []


def test_layers_of_sim() -> None:
    assert layer_of(f"{SIM}.anything.at_all") == COMPOSITION
    assert layer_of("pmkit.simulation") is None
    assert not inside("pmkit.simulation", SIM)
