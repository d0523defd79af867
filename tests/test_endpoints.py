"""Endpoints: one line of JSON between processes, and no credentials in clear text."""

from __future__ import annotations

import json
import re

import pytest

from pmkit.clock import ScaledClock, SystemClock
from pmkit.endpoints import Endpoints, Where, is_loopback, require_safe
from pmkit.errors import ConfigError


def test_binance_us_is_no_fallback() -> None:
    """Another venue, with other prices and without 1s candles (binance.md section 1)."""
    binance = Endpoints.real().binance
    for url in (*binance.rest, *binance.ws, binance.bulk):
        assert re.fullmatch(r"(https|wss)://[a-z0-9-]+\.binance\.(com|vision)(:443|:9443)?", url)


def test_json_round_trip_is_one_line() -> None:
    for endpoints in (Endpoints.real(), Endpoints.demo(), Endpoints(where=Where.LOCAL, clock="scaled:1:2:45.0")):
        text = endpoints.to_json()
        assert "\n" not in text
        assert Endpoints.from_json(text) == endpoints
        assert Endpoints.from_json(text.encode()) == endpoints


def test_unknown_fields_are_ignored_and_nonsense_is_refused() -> None:
    line = json.loads(Endpoints.real().to_json())
    line["brand_new"] = 1
    assert Endpoints.from_json(json.dumps(line)) == Endpoints.real()
    for text in ("", "{", "[]", '{"where": "moon"}', '{"binance": {"rest": "not a list"}}'):
        with pytest.raises(ConfigError, match="not an endpoints line"):
            Endpoints.from_json(text)


def test_the_clock_travels_along() -> None:
    assert isinstance(Endpoints.real().make_clock(), SystemClock)
    clock = Endpoints(clock="scaled:1000:2000:45.0").make_clock()
    assert isinstance(clock, ScaledClock)
    assert (clock.anchor_ms, clock.market_anchor_ms, clock.factor) == (1000, 2000, 45.0)
    with pytest.raises(ConfigError, match="clock of these endpoints"):
        Endpoints(clock="sundial").make_clock()


def test_demo_differs_from_real_on_kalshi_only() -> None:
    real, demo = Endpoints.real(), Endpoints.demo()
    assert real.kalshi != demo.kalshi
    assert ".demo." in demo.kalshi.rest
    assert ".demo." in demo.kalshi.ws
    assert (real.binance, real.polymarket) == (demo.binance, demo.polymarket)


def test_real_endpoints_are_encrypted() -> None:
    for endpoints in (Endpoints.real(), Endpoints.demo()):
        line = json.loads(endpoints.to_json())
        urls = [
            url
            for part in ("binance", "polymarket", "kalshi")
            for value in line[part].values()
            for url in (value if isinstance(value, list) else [value])
        ]
        assert len(urls) > 15
        assert all(url.startswith(("https://", "wss://")) and not url.endswith("/") for url in urls)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8080/x", True),
        ("ws://localhost", True),
        ("ws://LOCALHOST:1", True),
        ("http://[::1]:80", True),
        ("http://127.9.9.9", True),
        ("http://127.0.0.1.evil.test", False),
        ("http://localhost.evil.test", False),
        ("http://127.0.0.1@evil.test/", False),
        ("http://evil.test/127.0.0.1", False),
        ("http://evil.test?host=localhost", False),
        ("http://evil.test#@localhost", False),
        ("http://192.168.0.1", False),
        ("http://0.0.0.0", False),
        ("http://169.254.169.254", False),
        ("http://2130706433", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_loopback(url: str, local: bool) -> None:
    assert is_loopback(url) is local


@pytest.mark.parametrize("url", ["https://venue.test", "wss://venue.test/ws", "WSS://venue.test", "ws://127.0.0.1:1"])
def test_credentials_may_go_to(url: str) -> None:
    require_safe(url, "Kalshi")


@pytest.mark.parametrize(
    "url", ["http://venue.test", "ws://venue.test", "ftp://venue.test", "venue.test", "http://user:canary@venue.test/x"]
)
def test_credentials_are_refused_to(url: str) -> None:
    with pytest.raises(ConfigError, match="credentials are not sent") as caught:
        require_safe(url, "Kalshi")
    assert "canary" not in str(caught.value)
    assert "Kalshi" in str(caught.value)
