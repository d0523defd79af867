"""Reproduce official vectors, byte for byte where they are deterministic.

    python -m tests.vectors FILE...

The form of a file is recognised by its content. Prints every failure and ends with `N of N`; exits 1 when a vector
fails, when a file has no known form or no vectors, 2 when no file was given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.vectors import kalshi_signatures, polymarket_orders, polymarket_redeem

Failure = str | None
"""What is wrong with one vector; None where it is reproduced."""


class Form(NamedTuple):
    """One form of file. `check` gives (name of the vector, failure) for each vector in it."""

    name: str
    recognise: Callable[[Any], bool]
    check: Callable[[Any, Path], Iterator[tuple[str, Failure]]]


FORMS = (
    Form("Polymarket orders", polymarket_orders.recognise, polymarket_orders.check),
    Form("Kalshi signatures", kalshi_signatures.recognise, kalshi_signatures.check),
    Form("Polymarket redeem", polymarket_redeem.recognise, polymarket_redeem.check),
)


def form_of(content: Any) -> Form | None:
    """The one form a file has; None where it has none."""
    found = [form for form in FORMS if form.recognise(content)]
    return found[0] if len(found) == 1 else None


def run(paths: list[Path], say: Callable[[str], None] = print) -> int:
    """Check every file. Returns the exit code."""
    good = total = 0
    unread = []
    for path in paths:
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            unread.append(f"{path}: cannot be read: {error}")
            continue
        form = form_of(content)
        if form is None:
            unread.append(f"{path}: of no known form: {', '.join(known.name for known in FORMS)}")
            continue
        here = passed = 0
        try:
            for name, failure in form.check(content, path):
                here += 1
                passed += failure is None
                if failure is not None:
                    say(f"FAILED {path.name} {name}: {failure}")
        except Exception as error:  # a part of the file that is not of its form: what follows it is not checked
            problem = f"{type(error).__name__}: {error}"[:200]
            unread.append(f"{path}: not of the form {form.name} after {here} vectors ({problem})")
            here += 1
        if not here:
            unread.append(f"{path}: holds no vectors")
        say(f"{path.name}: {form.name}: {passed} of {here}")
        good, total = good + passed, total + here
    for line in unread:
        say(f"FAILED {line}")
    say(f"{good} of {total}")
    return 1 if unread or good != total or not total else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(__doc__)
        sys.exit(2)
    sys.exit(run([Path(name) for name in sys.argv[1:]]))
