"""Recordings of others, played through the library's feeds and books: does everything fit?

Forms (`pmkit.sim.replay.recording`): texts of Kalshi's socket, mixed Polymarket sessions with the names of markets
beside them, days of Binance candles, REST books of Kalshi, which are compared with the snapshots of the sessions given
with them. Each is served on loopback, byte for byte, to the socket classes that bots use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pmkit.errors import PmkitError
from pmkit.replay.binance import replay_candles
from pmkit.replay.kalshi import Answer, read_answers, replay_kalshi
from pmkit.replay.polymarket import replay_polymarket
from pmkit.sim.replay.recording import Form, Recording
from pmkit.sim.replay.sessions import scan

MUST_BE_ZERO = (
    *("unparsed", "bad_rows", "undelivered", "best_failures", "sequence_gaps", "negative_levels", "refused", "crossed"),
    *("candle_gaps", "candle_duplicates", "candle_mismatches", "rest_books_different"),
)
SUMMARY = (
    *("frames", "applied", "replies", "ignored", "unknown", "connections", "best_checks", "repeats", "dropped"),
    *("crossings", "lost_books", "late", "strangers", "rest_books", "rest_books_compared", "candles", *MUST_BE_ZERO),
)

Tell = Callable[[str], object]


async def replay_frames(
    paths: Sequence[Path], errors: list[str], *, speed: float | None = None, tell: Tell = lambda _: None
) -> dict[str, object]:
    """Play these files; what was seen, summed over them. `errors` gets a line for each file that could not be read
    whole, and for each count that must be 0 and is not. `tell` gets lines for people. `speed`: times as fast as it was
    recorded; None: as fast as the feeds take it.
    """
    totals: Counter[str] = Counter()
    recordings = _read_all(paths, errors)
    names = _names(recordings, errors)
    answers = read_answers([one for one in recordings if one.form is Form.ANSWERS], totals)
    others: Counter[str] = Counter()
    for recording in recordings:
        tell(_describe(recording))
        try:
            totals += await _replay(recording, names, answers, speed, tell)
        except (PmkitError, RuntimeError) as error:
            errors.append(f"{recording.path}: {error}")
        totals["bad_rows"] += recording.bad_rows
        others += recording.others
        if recording.damage:
            errors.append(f"{recording.path}: {recording.damage}; what was before it was replayed")
    books = [answer for same in answers.values() for answer in same]
    totals["rest_books"] += len(books)
    totals["rest_books_compared"] += sum(answer.compared for answer in books)
    totals["rest_books_different"] += sum(answer.compared and not answer.equal for answer in books)
    for kind in MUST_BE_ZERO:
        if totals[kind]:
            errors.append(f"{kind}: {totals[kind]}, expected 0")
    summary: dict[str, object] = {"files": len(recordings)}
    summary |= {key: totals[key] for key in SUMMARY}
    summary["not_replayed"] = dict(others)
    summary["rest_books_equal"] = totals["rest_books_compared"] - totals["rest_books_different"]
    return summary


async def _replay(
    recording: Recording,
    names: Mapping[str, tuple[str, str]],
    answers: Mapping[str, Sequence[Answer]],
    speed: float | None,
    tell: Tell,
) -> Counter[str]:
    if recording.form is Form.KALSHI:
        return await replay_kalshi(recording, answers, speed, tell)
    if recording.form is Form.MIXED:
        return await replay_polymarket(recording, names, speed, tell)
    if recording.form is Form.CANDLES and recording.candles:
        return await replay_candles(recording, speed, tell)
    return Counter()


def _read_all(paths: Sequence[Path], errors: list[str]) -> list[Recording]:
    """What the files hold; those that cannot be read go to `errors`."""
    recordings: list[Recording] = []
    for path in paths:
        try:
            recordings.append(scan(path))
        except FileNotFoundError:
            errors.append(f"{path}: there is no such file")
        except (OSError, PmkitError) as error:
            errors.append(f"{path}: {error}")
    return recordings


def _names(recordings: Sequence[Recording], errors: list[str]) -> dict[str, tuple[str, str]]:
    """asset -> (slug, outcome), from the files given and those beside the sessions."""
    beside: set[Path] = set()
    for recording in recordings:
        if recording.form is Form.MIXED:
            stem = recording.path.name.partition(".")[0]
            beside.update(recording.path.parent.glob(f"{stem}.markets.jsonl*"))
    beside -= {recording.path for recording in recordings}
    names: dict[str, tuple[str, str]] = {}
    for recording in [*recordings, *_read_all(sorted(beside), errors)]:
        names.update(recording.names)
    return names


def _describe(recording: Recording) -> str:
    what = [
        f"{recording.frames} frames",
        f"{recording.reads} REST books",
        f"{recording.candles} candles",
        f"{len(recording.names)} names",
    ]
    types = ", ".join(f"{count} {name}" for name, count in recording.types.items())
    others = ", ".join(f"{count} {name}" for name, count in recording.others.items())
    text = f"{recording.path.name}: {recording.form}, " + ", ".join(part for part in what if not part.startswith("0 "))
    return text + (f" ({types})" if types else "") + (f"; not replayed: {others}" if others else "")
