"""Play recordings back: one of `record.py` to its bot, which decides the same again; others through feeds and books.

    python examples/replay_session.py FILE...

A recording of `record.py` runs in virtual time, minutes in a second. The decisions go to `data/replays/`
(PMKIT_DATA_DIR moves it), the same bytes every time, and are compared with those of the recorded bot. Any other FILE
(texts of Kalshi's socket, mixed Polymarket sessions, days of Binance candles, REST books of Kalshi) is served on
loopback, byte for byte, and everything in it must fit. Prints what was seen, last a JSON object; exits with 1 when
something did not fit.
"""

import asyncio
import hashlib
import json
import runpy
import sys
from pathlib import Path

from pmkit.config.env import Settings
from pmkit.errors import PmkitError
from pmkit.logging.paths import Paths
from pmkit.replay.frames import replay_frames
from pmkit.replay.session import is_session, replay

BOT = "updown_bot.py", "UpDownBot"  # what plays a session: the bot that record.py runs, or another one
SPEED = None  # of other files: times as fast as it was recorded, e.g. 60.0; None: as fast as the feeds take it


def play_session(path, bot, directory, errors):
    """Replay one session; returns what the last line of the output says of it."""
    played = replay(bot, path)
    text = b"".join(line + b"\n" for line in played.decisions)
    log = directory / f"{path.name.partition('.')[0]}.decisions.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(text)
    venues = " and ".join(played.about.venues)
    print(f"{path.name}: {bot.__name__} plays {played.seconds:.0f} s of {played.about.bot} on {venues}")
    print(f"  asked: {dict(played.asked)}, sockets: {dict(played.sockets)}")
    for since, until, lost in played.holes:
        print(f"  a hole: {lost} lines are missing, over {(until - since) / 1e9:.1f} s")
    new, gone = played.apart()
    if not played.recorded:
        verdict = "the recording has none to compare with"
    elif played.exact:
        verdict = "those recorded, to the byte"
    elif not new and not gone:
        verdict = "those recorded, but for milliseconds"
    else:
        kept = len(played.recorded) - len(gone)
        verdict = f"{kept} of the {len(played.recorded)} recorded by {played.about.bot}, and {len(new)} others"
    print(f"  {len(played.decisions)} decisions in {log}: {verdict}")
    if played.damage:
        errors.append(f"{path}: {played.damage}; what was before it was replayed")
    return {
        "file": path.name,
        "decisions": len(played.decisions),
        "sha256": hashlib.sha256(text).hexdigest(),
        "recorded": len(played.recorded),
        "exact": played.exact,
        "others": len(new),
        "missing": len(gone),
        "asked": played.asked,
        "sockets": played.sockets,
        "holes": len(played.holes),
    }


async def main(paths):
    """Replay files of others; returns the exit code."""
    errors = []
    summary = await replay_frames(paths, errors, speed=SPEED, tell=print)
    return finish(summary, errors)


def finish(summary, errors):
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    print(json.dumps(summary | {"errors": errors}))
    return 1 if errors else 0


def play(paths):
    """Replay whatever the files are; returns the exit code."""
    sessions = [path for path in paths if is_session(path)]
    if not sessions:
        return asyncio.run(main(paths))
    file, name = BOT
    bot = runpy.run_path(str(Path(__file__).with_name(file)))[name]
    directory = Paths.of(Settings.load()).data_dir / "replays"
    errors, told = [], []
    for path in sessions:
        try:
            told.append(play_session(path, bot, directory, errors))
        except (PmkitError, OSError) as error:
            errors.append(f"{path}: {error}")
    code = finish({"sessions": told}, errors)
    others = [path for path in paths if path not in sessions]
    return max(code, asyncio.run(main(others))) if others else code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/replay_session.py FILE...")
    sys.exit(play([Path(name) for name in sys.argv[1:]]))
