"""The benchmarks run, their traffic is what it says, and contenders that disagree fail. Nothing here measures time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _feeds, _kalshi_peers, feed, kalshi_feed, traffic
from benchmarks._feeds import Naive, Pmkit, Probe, Recorder
from benchmarks.traffic import Traffic

MODELLED = [
    pytest.param(make, kind, id=f"{make.__name__} {kind}")
    for make in (traffic.polymarket, traffic.kalshi)
    for kind in ("dense", "thin")
]
HAVE_CCXT = feed.version("ccxt") is not None and feed.version("orjson") is not None


def touches(contender: Any, case: Traffic) -> list[tuple[str, int, int, int]]:
    recorder = Recorder()
    contender(case, recorder).run(case.frames)
    return recorder.touches


@pytest.mark.parametrize(("make", "kind"), MODELLED)
def test_traffic_is_seeded_and_never_crossed(make: Any, kind: str) -> None:
    case = make(1500, kind)
    assert case.frames == make(1500, kind).frames
    assert case.frames != make(1500, kind, seed=2).frames
    seen = touches(Naive, case)
    assert all(bid < ask for _, bid, ask, _ in seen if bid >= 0 and ask >= 0)
    assert (kind == "thin") == any(-1 in touch for touch in seen)  # only thin books have empty sides


def test_the_polymarket_mix_has_the_modelled_mean() -> None:
    assert 690 < traffic.polymarket(4000).mean_bytes < 780


@pytest.mark.parametrize(("make", "kind"), MODELLED)
def test_pmkit_follows_the_traffic_without_any_doubt(make: Any, kind: str) -> None:
    case = make(1500, kind)
    seen = touches(Pmkit, case)
    assert not [key for key, *_ in seen if "invalid" in key]
    assert seen == touches(Naive, case)


@pytest.mark.parametrize("make", [traffic.recorded_polymarket, traffic.recorded_kalshi])
def test_recorded_frames_repeat_without_a_seam(make: Any) -> None:
    once, twice = make(1), make(4000)
    if once is None:
        pytest.skip("no recordings: set PMKIT_RECORDINGS")
    assert len(twice.frames) > len(once.frames) and not len(twice.frames) % len(once.frames)
    seen = touches(Pmkit, twice)
    assert not [key for key, *_ in seen if "invalid" in key]
    assert seen == touches(Naive, twice)


@pytest.mark.parametrize("make", [traffic.polymarket, traffic.kalshi])
def test_contenders_agree_without_and_with_the_socket(make: Any) -> None:
    case = make(300)
    for run in (feed.offline, feed.online):
        found = run(case, 1)
        assert not found.failed
        assert {"pmkit", feed.NAIVE} <= set(found.cpu)
        assert (feed.CCXT in found.cpu) == HAVE_CCXT
        assert all(row.get("checksum") == found.checksum for row in feed.rows(found) if "skipped" not in row)


class _Forgetful(Pmkit):
    def run(self, frames: list[bytes]) -> None:
        super().run(frames[:-1])


class _Wrong(Naive):
    def __init__(self, case: Traffic, probe: Probe) -> None:
        super().__init__(case, probe)
        quote, count = probe.quote, iter(range(1 << 30))
        self.quote = lambda key, bid, ask, at: quote(key, bid, ask if next(count) != 100 else bid, at)


@pytest.mark.parametrize(("name", "contender"), [("pmkit", _Forgetful), (feed.CCXT, _Wrong)])
def test_a_contender_that_disagrees_fails_the_case(
    name: str, contender: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(feed.OFFLINE, name, contender)
    monkeypatch.setitem(feed.NEEDS, name, ())
    options = ["--rounds", "1", "--frames", "200", "--without-sockets", "--only", "polymarket dense"]
    assert feed.main(options) == 1
    assert f"polymarket dense no socket   {name:<18} FAILED: " in capsys.readouterr().out


def test_peers_that_are_not_installed_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feed, "version", lambda name: None)
    monkeypatch.setenv("PMKIT_RECORDINGS", str(tmp_path / "absent"))
    rows = tmp_path / "rows"
    assert feed.main(["--rounds", "1", "--frames", "100", "--without-sockets", "--json", str(rows)]) == 0
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    by_name = {(row["case"], row["contender"]): row for row in found}
    for name in (feed.CCXT, feed.NAUTILUS):
        assert "not installed" in by_name["polymarket dense no socket", name]["skipped"]
    assert by_name["kalshi recorded no socket", "all"]["skipped"] == "no recordings"
    assert f"{feed.CCXT} / pmkit" not in capsys.readouterr().out  # no verdict on what did not run


def test_the_probe_counts_what_it_is_told() -> None:
    probe, ended = Probe(2), []
    probe.done = lambda: ended.append(True)
    probe.start()
    probe.quote("a", 1, 2, 3)
    assert not ended
    probe.quote("a", 1, 2, 3)
    assert ended and probe.wall_ns > 0
    assert _feeds._units("0.5125") == 5125


def test_a_kalshi_peer_that_is_missing_or_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = kalshi_feed.Peers(None)
    case = kalshi_feed.measure(traffic.kalshi(300), peers, 1, tmp_path)
    kalshi_feed.report(case)
    printed = capsys.readouterr().out
    assert "pmkit" in printed and printed.count("skipped: no environment of peers") == 2

    class Wrong(kalshi_feed.Peers):
        def absent(self, name: str) -> str:
            return ""

        def ask(self, name: str, frames: Path, *, touches: bool) -> dict[str, Any]:
            assert touches, "a peer that is wrong is never timed"
            return {"touches": [["T", 1, 2]]} if name == "pykalshi" else {"error": "ValueError: x"}

    case = kalshi_feed.measure(traffic.kalshi(300), Wrong(None), 1, tmp_path)
    assert all(why.startswith("wrong, not timed") for why in case.left_out.values()) and len(case.left_out) == 2
    assert set(case.cpu) == {"pmkit", kalshi_feed.NAIVE}
    monkeypatch.setattr(kalshi_feed._feeds, "Pmkit", _feeds.DecodeOnly)
    with pytest.raises(SystemExit, match="pmkit's books are wrong"):
        kalshi_feed.measure(traffic.kalshi(300), peers, 1, tmp_path)


def test_the_process_of_the_kalshi_peers_answers_line_by_line(tmp_path: Path) -> None:
    """With the interpreter of the tests, which has none of the peers."""
    import sys

    path = tmp_path / "frames"
    path.write_bytes(b"{}\n")
    peers = kalshi_feed.Peers(sys.executable)
    try:
        assert peers.versions == {} and "not installed" in peers.absent("pykalshi")
        assert "ModuleNotFoundError" in peers.ask("pykalshi", path, touches=True)["error"]
    finally:
        peers.close()
    assert set(kalshi_feed.PEERS) == set(_kalshi_peers.PEERS)
