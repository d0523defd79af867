"""Signatures, tickers and windows of the local Kalshi against its page and recordings."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ScaledClock, SystemClock
from pmkit.sim.kalshi.auth import Keys, verify
from pmkit.sim.kalshi.windows import LENGTH_MS, Window, exists, iso_us, parse
from pmkit.sim.server import Refused
from tests.sim.kalshi_client import ASSETS, HOUR, Setup, running, sign, utc


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


@pytest.fixture
async def calm() -> AsyncIterator[Setup]:
    """With traders who are slow, for tests that let a quarter of an hour pass."""
    async with running(steps=0.2) as made:
        yield made


# -- signatures


def test_signatures_are_checked_as_the_vectors_say(recordings: Path) -> None:
    directory = recordings / "kalshi/auth"
    vectors = json.loads((directory / "signature_vectors.json").read_text())
    rsa_key = serialization.load_pem_public_key((directory / "throwaway_rsa_public.pem").read_bytes())
    ed_key = serialization.load_pem_public_key((directory / "throwaway_ed25519_public.pem").read_bytes())
    assert isinstance(rsa_key, rsa.RSAPublicKey)
    assert isinstance(ed_key, ed25519.Ed25519PublicKey)
    for vector in vectors["verify"]:
        message = f"{vector['timestamp_ms']}{vector['method'].upper()}{urlsplit(vector['url']).path}"
        assert message == vector["message"]
        assert verify(rsa_key, message, vector["rsa_pss_example_signature"])
        assert verify(ed_key, message, vector["ed25519_signature"])
        assert not verify(rsa_key, message + "/", vector["rsa_pss_example_signature"])
        assert not verify(ed_key, message + "/", vector["ed25519_signature"])
    assert vectors["must_fail"]
    for vector in vectors["must_fail"]:
        assert not verify(rsa_key, vector["must_not_verify_against"], vector["signature"]), vector["name"]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_signed_requests_of_both_kinds_of_keys(kind: str) -> None:
    async with running(key_kind=kind) as setup:
        assert (await setup.ask("/account/limits", signed=True))[0] == 200
        async with setup.socket() as ws:
            assert (await ws.call("list_subscriptions"))["msg"] == []


async def test_401_bodies(setup: Setup, recordings: Path) -> None:
    path = "/trade-api/v2/account/limits"
    now = setup.clock.now_ms()
    good = sign(setup.venue.key, now, "GET", path)
    recorded = json.loads((recordings / "kalshi/rest/errors_observed.json").read_text())["errors"][0]
    status, body = await setup.ask("/account/limits", **sign(setup.venue.key, now, "GET", path + "?limit=5"))
    assert (status, body) == (401, recorded["body"])
    stranger = Keys(setup.clock).make()
    for headers in (
        {},
        good | {"KALSHI-ACCESS-SIGNATURE": "!!!"},
        good | {"KALSHI-ACCESS-TIMESTAMP": str(now + 1)},
        good | {"KALSHI-ACCESS-TIMESTAMP": str(now // 1000)},
        sign(stranger, now, "GET", path),
    ):
        status, body = await setup.ask("/account/limits", **headers)
        assert status == 401
        assert set(body["error"]) == {"code", "message", "details"}
    status, body = await setup.ask("/account/limits", **sign(setup.venue.key, now - 31_000, "GET", path))
    assert (status, body["error"]["code"]) == (401, "header_timestamp_expired")
    setup.venue.keys.forget(setup.venue.key.id)
    assert (await setup.ask("/account/limits", **good))[0] == 401
    assert setup.venue.key.pem not in repr(setup.venue.key)


def test_timestamps_are_good_for_30_seconds_of_the_wall() -> None:
    wall = SystemClock().now_ms()
    clock = ScaledClock(wall, 45.0)
    keys = Keys(clock)
    key = keys.make()
    now = clock.now_ms()
    for offset in (-29_000 * 45, 29_000 * 45):
        assert keys.check("GET", "/x", sign(key, now + offset, "GET", "/x")) == key.id
    for offset in (-31_000 * 45, 31_500 * 45):
        with pytest.raises(Refused):
            keys.check("GET", "/x", sign(key, now + offset, "GET", "/x"))


async def test_the_socket_is_signed_always(setup: Setup) -> None:
    url = setup.venue.endpoints().ws
    for headers in ({}, sign(setup.venue.key, setup.clock.now_ms(), "GET", "/trade-api/ws/v3")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await setup.http.ws_connect(url, headers=headers)
        assert refused.value.status == 401


# -- windows and tickers


def test_tickers_name_the_close_on_the_wall_in_new_york() -> None:
    for ticker, close in (
        ("KXBTC15M-26AUG170100-00", "2026-08-17T05:00:00+00:00"),  # recorded, EDT
        ("KXBTC15M-26JUL222315-15", "2026-07-23T03:15:00+00:00"),  # recorded, the UTC day is another one
        ("KXBTC15M-26NOV200715-15", "2026-11-20T12:15:00+00:00"),  # EST
    ):
        window = Window("BTC", utc(close))
        assert window.ticker == ticker
        assert window.event_ticker == ticker.rpartition("-")[0]
        assert parse(ticker, ASSETS) == parse(window.event_ticker, ASSETS) == window


def test_every_recorded_ticker_is_a_window_here(recordings: Path) -> None:
    """38,474 windows of three months: the rules of names and of the Thursday gap allow each of them."""
    with gzip.open(recordings / "kalshi/sessions/settled_15m_markets_may_jul2026.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 30_000
    coins = tuple({row["coin"] for row in rows})
    closes = set()
    for row in rows:
        window = parse(row["ticker"], coins)
        assert window is not None, row["ticker"]
        assert window.ticker == row["ticker"]
        closes.add(window.close_ms)
    quarters = set(range(min(closes), max(closes) + 1, LENGTH_MS))
    maintenance = {close for close in quarters if not exists(close)}
    assert len(maintenance) > 8 * 8  # some Thursdays
    assert maintenance.isdisjoint(closes)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4 * 366 * 96))
def test_a_window_is_found_again_by_its_tickers(quarter: int) -> None:
    close = utc("2026-01-01T00:00:00+00:00") + quarter * LENGTH_MS
    window = Window("ETH", close)
    expected = window if exists(close) else None
    found = parse(window.ticker, ASSETS)
    assert found == expected or (expected is None and found != window)


def test_nonsense_is_no_window() -> None:
    for ticker in ("", "KXBTC15M", "KXBTC15M-26NOV200715", "KXBTC15M-26XXX200715-15", "KXBTC15M-26NOV310715-15"):
        assert parse(ticker, ASSETS) is None or ticker.count("-") == 1
    for ticker in (
        "KXBTC15M-26NOV200715-30",  # not the minute of the close
        "KXBTC15M-26NOV200710-10",  # not a quarter
        "KXSOL15M-26NOV200715-15",  # not an asset of this world
        "KXBTC15M-26MAR080215-15",  # an hour that spring leaves out
        "KXBTC15M-26NOV190315-15",  # Thursday maintenance
        "KXBTC15M-٢6NOV200715-15",
    ):
        assert parse(ticker, ASSETS) is None


def test_the_thursday_gap_is_eight_windows() -> None:
    day = utc("2026-11-19T00:00:00-05:00")
    gone = [close for close in range(day, day + 24 * HOUR, LENGTH_MS) if not exists(close)]
    assert [(close - day) // 60_000 for close in gone] == list(range(3 * 60 + 15, 5 * 60 + 1, 15))


def test_the_hour_that_autumn_repeats_is_listed_once() -> None:
    night = utc("2026-11-01T00:15:00-04:00")
    names = [Window("BTC", close).ticker for close in range(night, night + 4 * HOUR, LENGTH_MS) if exists(close)]
    assert len(names) == len(set(names)) == 12


def test_fractions_of_seconds_are_written_as_go_does() -> None:
    base = utc("2026-07-22T17:30:03+00:00") * 1000
    for fraction, text in ((972957, "2026-07-22T17:30:03.972957Z"), (983570, "2026-07-22T17:30:03.98357Z")):
        assert iso_us(base + fraction) == text
    assert iso_us(base) == "2026-07-22T17:30:03Z"
