"""A recorded session, played back to its bot: the same requests, the same frames, the same decisions."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from examples import plot_session, replay_session
from examples.market_maker import MarketMakerBot
from examples.updown_bot import UpDownBot
from pmkit.errors import ConfigError, PmkitError
from pmkit.replay.session import Replayed, replay
from tests.bot.recorded import record
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of the market maker across a boundary, on both venues and Binance."""
    path = tmp_path_factory.mktemp("recorded") / "MarketMakerBot.jsonl.gz"
    bot = record(MarketMakerBot, path)
    assert bot.stats.fills and bot.stats.rollovers == 2
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def changed(path: Path, target: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    """The recording with other lines."""
    text = "".join(json.dumps(line) + "\n" for line in change(lines_of(path)))
    target.write_bytes(gzip.compress(text.encode()))
    return target


def same(played: Replayed) -> None:
    assert played.exact, played.apart()
    assert set(played.asked) == {"as recorded"}
    assert set(played.sockets) == {"frames", "connections"}
    assert played.holes == []
    assert played.damage == ""


def test_a_replay_decides_what_the_session_did_to_the_byte(recorded):
    played = replay(MarketMakerBot, recorded)
    same(played)
    events = [json.loads(line)["event"] for line in played.decisions]
    assert len(events) > 100
    assert {"intent", "accepted", "cancel", "fill", "rollover", "settled"} <= set(events)
    assert played.sockets["connections"] == 3
    told = [line["type"] for line in lines_of(recorded)]
    assert played.sockets["frames"] >= told[: told.index("stopping")].count("in") > 300
    assert (played.stats.tick_errors, played.stats.hook_errors, played.stats.task_errors) == (0, 0, 0)


def test_without_keys_the_polls_are_played_back(tmp_path):
    """The markets of Kalshi by REST alone: hundreds of equal requests, each with the answer of its moment."""
    path = tmp_path / "polled.jsonl.gz"
    record(UpDownBot, path, before=20.0, after=15.0, with_key=False)
    played = replay(UpDownBot, path)
    same(played)
    assert played.asked["as recorded"] > 60


def test_two_replays_in_two_processes_write_the_same_bytes(recorded, tmp_path):
    """Whatever the order of hashes, the zone and the language."""
    script = tmp_path / "replay_session.py"
    source = (ROOT / "examples" / "replay_session.py").read_text()
    script.write_text(source.replace('"updown_bot.py", "UpDownBot"', '"market_maker.py", "MarketMakerBot"'))
    (tmp_path / "market_maker.py").write_text((ROOT / "examples" / "market_maker.py").read_text())

    def child(name: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, script, recorded],
            env={**os.environ, **environment, "PMKIT_DATA_DIR": str(tmp_path / name), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )

    children = [
        child("one", PYTHONHASHSEED="1", TZ="UTC", LANG="C"),
        child("two", PYTHONHASHSEED="2", TZ="Pacific/Kiritimati", LANG="tr_TR.UTF-8"),
    ]
    told = [one.communicate(timeout=120)[0] for one in children]
    assert [one.returncode for one in children] == [0, 0]
    logs = [tmp_path / name / "replays" / "MarketMakerBot.decisions.jsonl" for name in ("one", "two")]
    one, two = (log.read_bytes() for log in logs)
    assert one == two
    assert len(one.splitlines()) > 100
    summaries = [json.loads(text.splitlines()[-1]) for text in told]
    assert summaries[0] == summaries[1], "they asked and heard the same as well"
    assert summaries[0]["sessions"][0]["exact"] is True


class Curious(MarketMakerBot):
    """The recorded bot, but it asks for more."""

    async def _tick(self) -> None:
        await super()._tick()
        if self.stats.ticks == 5:
            market = self.markets["polymarket", "BTC"]
            with pytest.raises(PmkitError, match="the recording has no answer to GET"):
                await self.exchanges["polymarket"].get_orderbook(market, "UP")
            self.told = True


class Quieter(MarketMakerBot):
    """The recorded bot, for one venue only."""

    async def quote(self, market: Any, outcome: str) -> None:
        if market.venue == "kalshi":
            await super().quote(market, outcome)


def test_what_was_not_recorded_is_an_error_that_says_so(recorded):
    played = replay(Curious, recorded)
    assert played.asked["not recorded"] == 1
    assert played.exact, "and the rest goes on"


def test_another_strategy_on_the_same_data_is_told_the_same_and_decides_otherwise(recorded):
    played = replay(Quieter, recorded)
    ordered = {json.loads(line)["venue"] for line in played.decisions if json.loads(line)["event"] == "intent"}
    assert ordered == {"kalshi"}
    assert not played.exact and all(played.apart())
    assert set(played.asked) == {"as recorded"}, "it sees the same market"


def test_a_torn_recording_is_played_to_its_tear(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PMKIT_DATA_DIR", str(tmp_path))
    torn = tmp_path / "torn.jsonl.gz"
    raw = recorded.read_bytes()
    torn.write_bytes(raw[: len(raw) * 4 // 5])
    played = replay(MarketMakerBot, torn)
    assert "torn" in played.damage
    # The last moments may differ: nobody knows what the bot was told after the tear.
    assert 20 < len(played.recorded) < sum(line["type"] == "decision" for line in lines_of(recorded))
    new, _ = played.apart()
    assert len(new) < 10
    assert replay_session.play([torn]) == 1
    assert "torn" in capsys.readouterr().err


def test_a_hole_is_reported_and_never_looks_like_silence(recorded, tmp_path):
    """The lines of some seconds are gone, as a slow disk leaves them."""

    def punch(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        gone = range(len(told) // 3, len(told) // 3 + 100)
        since, until = told[gone[0]]["at_ns"], told[gone[-1]]["at_ns"]
        lost = {"type": "lost", "at_ns": until, "since_ns": since, "lines": len(gone)}
        return [*told[: gone[0]], lost, *told[gone[-1] + 1 :]]

    played = replay(MarketMakerBot, changed(recorded, tmp_path / "hole.jsonl.gz", punch))
    ((since, until, lost),) = played.holes
    assert lost == 100
    assert played.sockets["cut by a hole"] == 3, "books of before are no books of now"
    blind = range(since // 1_000_000 + 200, until // 1_000_000)  # an order is some 100 ms on its way
    times = [json.loads(line)["time_utc"] for line in played.decisions if json.loads(line)["event"] == "intent"]
    assert len(blind) > 2000
    assert not [time for time in times if int(datetime.fromisoformat(time).timestamp() * 1000) in blind]


def test_recordings_that_say_too_little_are_refused(recorded, tmp_path):
    def forget(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**told[0], "about": {"bot": "X"}}, *told[1:]]

    with pytest.raises(ConfigError, match="not what was run"):
        replay(MarketMakerBot, changed(recorded, tmp_path / "about.jsonl.gz", forget))
    with pytest.raises(FileNotFoundError):
        replay(MarketMakerBot, tmp_path / "none.jsonl.gz")


def test_a_lost_connection_is_lost_again(recorded, tmp_path):
    """The venue hangs up in the middle of a recording: the bot's books expire and come back as they did."""
    path = tmp_path / "cut.jsonl.gz"
    cuts: list[str] = []

    class Cut(UpDownBot):
        async def _tick(self) -> None:
            if self.stats.ticks == 8:
                cuts.append("cut")
                for session in list(self.venues.polymarket.clob.sessions):
                    session.abort()
            await super()._tick()

    record(Cut, path, before=25.0, after=5.0)
    assert cuts
    closes = [line for line in lines_of(path) if line["type"] == "close" and line["by"] == "venue"]
    assert closes
    played = replay(UpDownBot, path)
    assert played.exact
    assert played.sockets["closed as recorded"] == len(closes)


def test_the_picture_of_a_session_has_a_panel_for_each_kind(recorded, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need the extra pmkit[plot]")
    seen = plot_session.Seen()
    played = replay(plot_session.watched(MarketMakerBot, seen), recorded)
    assert played.exact, "being watched changes nothing"
    figure = plot_session.draw(played, seen)
    price, polymarket, kalshi, profit = figure.axes

    def legend(axis):
        return {text.get_text() for text in axis.get_legend().get_texts()}

    assert legend(price) == {"BTC (Binance)", "strike, kalshi"}
    assert {"best ask", "best bid", "own order, buys it", "own order, bets against it"} <= legend(polymarket)
    assert {"best ask", "best bid", "own order, buys it", "own order, bets against it"} <= legend(kalshi)
    assert legend(profit) == {"polymarket", "kalshi"}
    fills = sum(json.loads(line)["event"] == "fill" for line in played.decisions)
    dots = sum(
        len(points.get_offsets())
        for axis in (polymarket, kalshi)
        for points in axis.collections
        if str(points.get_label()).startswith("fill")
    )
    assert dots == fills > 0
    monkeypatch.setenv("PMKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(plot_session, "BOT", ("market_maker.py", "MarketMakerBot"))
    assert plot_session.main(recorded).read_bytes().startswith(b"\x89PNG")


def test_a_connection_that_is_lost_in_the_replay_alone_goes_on(recorded):
    """A bot that drops its connection where the recorded one kept it hears what is still to come, and it is counted."""

    class Dropping(MarketMakerBot):
        async def _tick(self) -> None:
            await super()._tick()
            if self.stats.ticks == 10:
                for socket in self.exchanges["polymarket"].exchange.data.sockets:
                    socket.drop("a test")

    played = replay(Dropping, recorded)
    assert played.sockets["resumed"] == 1
    assert played.sockets["missed frames"] > 0
    ordered = [json.loads(line) for line in played.decisions if json.loads(line)["event"] == "intent"]
    late = [line for line in ordered if line["venue"] == "polymarket" and line["time_utc"] > "2026-11-20T12:15:05"]
    assert late, "the next window has a snapshot of its own"
