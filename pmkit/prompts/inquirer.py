"""The questions a script asks before it starts: where, mode, venues, assets, interval, period.

Each is answered by its PMKIT_* variable when that is set (`Settings`), else asked on the terminal. Without a terminal a
ConfigError names the variable: nothing waits for an answer that cannot come, and nothing becomes live by default. Where
there is only one choice nothing is asked.

A question blocks until it is answered: ask before the event loop runs. Ctrl-C raises KeyboardInterrupt, with the
terminal as it was before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from pmkit.config import values
from pmkit.config.env import ASSETS, Mode, Settings, Venue, Where
from pmkit.config.values import INTERVALS, Period
from pmkit.errors import ConfigError
from pmkit.logging.text import escape

T = TypeVar("T")

CONFIRMATION = "LIVE"

_WHERE_LABELS = {
    Where.LOCAL: "Local (local venues: no network, no keys)",
    Where.REAL: "Real",
    Where.DEMO: "Demo (Kalshi's play money)",
}
_MODE_LABELS = {Mode.DRY_RUN: "Dry Run", Mode.LIVE: "Live"}
_VENUE_LABELS = {Venue.POLYMARKET: "Polymarket", Venue.KALSHI: "Kalshi"}


def ask_where(settings: Settings, venues: Iterable[str] = ()) -> Where:
    """Local, real or (for Kalshi alone) demo. Variable: PMKIT_WHERE."""
    asked = set(venues)
    choices = [where for where in Where if where is not Where.DEMO or asked <= {Venue.KALSHI}]
    return _one("PMKIT_WHERE", settings.where, "Select where", {_WHERE_LABELS[choice]: choice for choice in choices})


def ask_mode(settings: Settings, where: Where | str) -> Mode:
    """Dry-run or live; dry-run stands first. Variable: PMKIT_MODE. Live on real venues also needs `confirm_live`."""
    message = f"Select mode ({where} venues)"
    return _one("PMKIT_MODE", settings.mode, message, {label: mode for mode, label in _MODE_LABELS.items()})


def ask_venues(settings: Settings, choices: Sequence[str] = tuple(Venue)) -> tuple[Venue, ...]:
    """One or more venues. Variable: PMKIT_VENUES."""
    labels = {_VENUE_LABELS[Venue(choice)]: Venue(choice) for choice in choices}
    return _several("PMKIT_VENUES", settings.venues, "Select venues", labels)


def ask_assets(settings: Settings, choices: Sequence[str] = ASSETS) -> tuple[str, ...]:
    """One or more of `choices`. Variable: PMKIT_ASSETS."""
    return _several("PMKIT_ASSETS", settings.assets, "Select assets", {choice: choice for choice in choices})


def ask_interval(settings: Settings, choices: Sequence[str] = INTERVALS, default: str | None = None) -> str:
    """One of `choices`. Variable: PMKIT_INTERVAL."""
    labels = {choice: choice for choice in choices}
    return _one("PMKIT_INTERVAL", settings.interval, "Select interval", labels, default)


def ask_period(settings: Settings, default: str = "7d") -> Period:
    """A stretch of time, see `Period`. Variable: PMKIT_PERIOD."""
    if settings.period is not None:
        return settings.period
    _need_terminal("PMKIT_PERIOD", "a length such as 36h, 7d or 4w, or 2026-11-01..2026-11-08")

    def check(_: object, text: str) -> bool:
        try:
            values.period(text)
        except values.Wrong as error:
            _refuse(text, str(error))
        return True

    message = "Period (36h, 7d, 4w, 2026-11-01..2026-11-08 or full)"
    return values.period(_answer("Text", message=message, default=default, validate=check))


def confirm(question: str, answer: str) -> bool:
    """Yes or no; no is the default. No variable answers it: without a terminal a ConfigError says what does (`answer`,
    e.g. an option of the script).
    """
    if not _has_terminal():
        raise ConfigError(f"{question} There is no terminal to ask on: {answer}")
    return bool(_answer("Confirm", message=question, default=False))


def confirm_live(where: Where | str, venues: Iterable[str], details: str = "") -> None:
    """Live on real venues: the user types LIVE, or ConfigError is raised. Local and demo need no confirmation.

    `details` (account, assets, order size) is shown above the question. No variable answers this one, so without a
    terminal live on real venues is refused: a forgotten PMKIT_MODE=live must not be enough to spend money.
    """
    if Where(where) is not Where.REAL:
        return
    names = " and ".join(_VENUE_LABELS[Venue(venue)] for venue in venues)
    if not _has_terminal():
        raise ConfigError(
            f"live on {names} needs a typed confirmation, and there is no terminal to ask on: start it in a terminal, "
            "or choose PMKIT_MODE=dry-run"
        )
    sys.stdout.write(f"\nLIVE on {names}: orders will be real and spend real money.\n")
    if details:
        sys.stdout.write("".join(f"{escape(line)}\n" for line in details.splitlines()))
    sys.stdout.flush()
    typed = _answer("Text", message=f"Type {CONFIRMATION} to go on")
    if typed.strip() != CONFIRMATION:
        raise ConfigError(f"live trading was not confirmed ({CONFIRMATION} was not typed): nothing was started")


def _one(name: str, answer: T | None, message: str, labels: dict[str, T], default: T | None = None) -> T:
    """The variable's answer if it is among the choices, else the one that the user picks."""
    if answer is not None:
        if answer not in labels.values():
            raise ConfigError(f"{name} is {answer}: the choices here are {_listed(labels)}")
        return answer
    if len(labels) == 1:
        return next(iter(labels.values()))
    _need_terminal(name, _listed(labels))
    first = next((label for label, value in labels.items() if value == default), None)
    return labels[_answer("List", message=message, choices=list(labels), default=first, carousel=True)]


def _several(name: str, answer: tuple[T, ...], message: str, labels: dict[str, T]) -> tuple[T, ...]:
    """As `_one`, at least one."""
    if answer:
        wrong = [str(value) for value in answer if value not in labels.values()]
        if wrong:
            raise ConfigError(f"{name} has {', '.join(wrong)}: the choices here are {_listed(labels)}")
        return answer
    if len(labels) == 1:
        return tuple(labels.values())
    _need_terminal(name, f"one or more of {_listed(labels)}, separated by commas")

    def check(_: object, chosen: list[str]) -> bool:
        if not chosen:
            _refuse("", "choose at least one with the space bar, then press enter")
        return True

    hint = f"{message} (space bar, then enter)"
    chosen = set(_answer("Checkbox", message=hint, choices=list(labels), carousel=True, validate=check))
    return tuple(value for label, value in labels.items() if label in chosen)


def _listed(labels: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in labels.values())


@contextmanager
def _no_queries() -> Iterator[None]:
    """While inquirer makes its terminals (blessed's; one when it is imported, one per renderer).

    blessed asks the terminal what it can do and waits up to ten seconds where none answers (a plain pseudo-terminal);
    late answers would be read as typed keys. Without a keyboard, which is what `sys.__stdin__` being None means, it
    does not ask.
    """
    keyboard = sys.__stdin__
    sys.__stdin__ = None  # type: ignore[misc]
    try:
        yield
    finally:
        sys.__stdin__ = keyboard  # type: ignore[misc]


def _answer(kind: str, **question: Any) -> Any:
    """Ask one question. KeyboardInterrupt passes; a terminal that goes away while it waits is a ConfigError."""
    with _no_queries():
        import inquirer
        from inquirer.events import KeyEventGenerator
        from inquirer.render.console import ConsoleRender

        class Keys(KeyEventGenerator):  # type: ignore[misc]
            def next(self) -> Any:
                try:
                    pressed = super().next()
                except Exception as error:  # OSError, or termios.error where there is one
                    raise EOFError from error
                if not pressed.value:  # end of file: inquirer itself would ask again for ever
                    raise EOFError
                return pressed

        render = ConsoleRender(event_generator=Keys())
    asked = [getattr(inquirer, kind)("answer", **question)]
    try:
        return inquirer.prompt(asked, render=render, raise_keyboard_interrupt=True)["answer"]
    except (EOFError, OSError):
        raise ConfigError("the terminal went away while a question waited for its answer") from None


def _refuse(text: str, reason: str) -> None:
    """Show why an answer will not do, and ask on."""
    from inquirer.errors import ValidationError

    raise ValidationError(text, reason=reason)


def _need_terminal(name: str, expected: str) -> None:
    if not _has_terminal():
        raise ConfigError(f"{name} is not set and there is no terminal to ask on: set {name} to {expected}")


def _has_terminal() -> bool:
    """Both ends are terminals, and this process may read from its one (a background job would be stopped)."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stdout) and _in_foreground()


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _in_foreground() -> bool:
    if os.name != "posix":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
