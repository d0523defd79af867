"""Record a session: a bot runs as always, and every public frame and request it sees goes to a file.

    python -m examples.record            (PMKIT_WHERE=local|real and PMKIT_MODE=dry-run answer the questions)

Needs no key: what is public is recorded; with keys, what they open as well, and never the keys. The file is in
`data/recordings`; Ctrl-C ends it. `python -m examples.replay_session FILE` plays it back, `python -m
examples.plot_session FILE` draws it.
"""

import runpy
from pathlib import Path

from pmkit import run

BOT = "updown_bot.py", "UpDownBot"  # any file with a bot
CANDLES = "1s"  # of Binance, beside the venues; None for none

if __name__ == "__main__":
    file, name = BOT
    run(runpy.run_path(str(Path(__file__).with_name(file)))[name], candles=CANDLES, record=True)
