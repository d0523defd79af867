"""Broken frames on Polymarket's market channel: nothing raises, and no book that is wrong is ever valid.

python -m tests.soak.polymarket_frames [--seed 1] [--frames 100000]
"""

from __future__ import annotations

import argparse
import time

from tests.polymarket.test_book_feed_fuzz import broken_frames

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=100_000)
    given, _ = parser.parse_known_args()
    began = time.time()
    compared = broken_frames(given.seed, given.frames)
    print(f"{given.frames} broken frames, {compared} valid books compared, {time.time() - began:.0f} s: nothing wrong")
