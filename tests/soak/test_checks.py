"""The checks of a soak find what they are there for."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.soak.checks import Life, problems
from tests.soak.ledger import Booked, Ledger, Leg

D = Decimal
TOKEN = ("0xmarket", "UP")


def note(t: float, what: str, **fields: Any) -> dict[str, Any]:
    return {"t": t, "life": 1, "what": what, **fields}


def view(t: float, what: str, size: str, opened: tuple[str, ...] = (), trades: tuple[Any, ...] = ()) -> dict[str, Any]:
    positions = [(*TOKEN, size)] if size != "0" else []
    return note(t, what, began=t - 0.1, looked=t, open=list(opened), trades=list(trades), positions=positions)


def intent(t: float, client: str, size: str = "10") -> dict[str, Any]:
    return note(t, "intent", client=client, market=TOKEN[0], outcome=TOKEN[1], side="BUY", price="0.5", size=size)


def fill(t: float, state: str, own: bool = True) -> dict[str, Any]:
    more = {"market": TOKEN[0], "outcome": TOKEN[1], "shares": "10", "price": "0.5"}
    return note(t, "fill", fill="f1", order="o1", state=state, own=own, **more)


def booked(order_id: str, at: float, size: str = "10") -> Booked:
    return Booked(order_id, TOKEN, "BUY", at, price=D("0.5"), size=D(size))


def run() -> tuple[list[Life], Ledger]:
    """A process that placed and filled one order and was killed with a second on its way; another that came after."""
    ledger = Ledger()
    for order in (booked("o1", 2.0), booked("o2", 20.0, "7")):
        ledger.book(order)
    leg = Leg("f1", "o1", TOKEN, D(10), D("0.5"), 3.0, "FINAL")
    ledger.legs["f1", "o1"] = leg
    ledger._held[TOKEN] = [(3.0, D(10))]
    ledger.orders["o1"].ended, ledger.orders["o2"].ended = 3.0, 26.0
    first = Life(1, 0.0, 21.0)
    first.notes = [
        note(0.5, "start"),
        view(1.0, "view", "0"),
        note(1.2, "ready"),
        intent(1.9, "a"),
        note(2.1, "accepted", client="a", order="o1", state="LIVE"),
        fill(3.1, "PENDING"),
        fill(5.0, "FINAL"),
        intent(19.9, "b", "7"),
    ]
    second = Life(2, 22.0)
    second.notes = [
        note(22.5, "start"),
        view(23.0, "view", "10", ("o2",), (("f1", "o1"),)),
        note(23.2, "ready"),
        note(25.0, "calm"),
        view(27.0, "last", "10", (), (("f1", "o1"),)),
        note(27.5, "status", order="o1", state="FILLED", filled="10"),
        note(28.0, "done"),
    ]
    return [first, second], ledger


def test_a_run_without_fault_has_no_problem() -> None:
    assert problems(*run()) == []


def twice(lives: list[Life], ledger: Ledger) -> None:
    ledger.book(booked("o3", 20.1, "7"))
    ledger.orders["o3"].ended = 21.0


def lost(lives: list[Life], ledger: Ledger) -> None:
    lives[1].notes[1]["open"] = []


def made_up(lives: list[Life], ledger: Ledger) -> None:
    lives[0].notes[4]["order"] = "o9"


def refused_and_placed(lives: list[Life], ledger: Ledger) -> None:
    lives[0].notes.append(note(20.5, "rejected", client="b", code="tick_size"))
    ledger.orders["o2"].client_order_id = "b"


def unknown(lives: list[Life], ledger: Ledger) -> None:
    lives[0].notes.append(note(20.5, "unknown", client="b", intent={"order_id": "o2"}))


def absent_and_placed(lives: list[Life], ledger: Ledger) -> None:
    unknown(lives, ledger)
    lives[1].notes.append(note(24.0, "resolved", client="b", order=None))
    ledger.orders["o2"].client_order_id = "b"


def filled_twice(lives: list[Life], ledger: Ledger) -> None:
    lives[0].notes.append(fill(5.5, "FINAL"))


def never_filled(lives: list[Life], ledger: Ledger) -> None:
    del lives[0].notes[5:7]


def foreign(lives: list[Life], ledger: Ledger) -> None:
    lives[0].notes[5]["own"] = False


def flat_after_the_kill(lives: list[Life], ledger: Ledger) -> None:
    lives[1].notes[1]["positions"] = []


def wrong_in_the_end(lives: list[Life], ledger: Ledger) -> None:
    lives[1].notes[4]["positions"] = [(*TOKEN, "9")]


def wrong_status(lives: list[Life], ledger: Ledger) -> None:
    lives[1].notes[5]["filled"] = "9"


def open_in_the_end(lives: list[Life], ledger: Ledger) -> None:
    ledger.orders["o2"].ended = None


def back_from_the_dead(lives: list[Life], ledger: Ledger) -> None:
    for state in ("CANCELED", "LIVE"):
        lives[1].notes.insert(3, note(24.0, "order", order="o2", state=state, filled="0"))
    lives[1].notes[3:5] = reversed(lives[1].notes[3:5])


def never_ended(lives: list[Life], ledger: Ledger) -> None:
    del lives[1].notes[-1]


def saw_nothing(lives: list[Life], ledger: Ledger) -> None:
    del lives[0].notes[1]


def test_an_order_of_an_earlier_life_that_is_looked_up_is_not_this_ones_own() -> None:
    lives, ledger = run()
    lives[1].notes[3:3] = [note(24.0, "resolved", client="a", order="o1", took=True), fill(24.1, "FINAL", own=False)]
    assert not [problem for problem in problems(lives, ledger) if "foreign" in problem]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (twice, "nobody placed, or a second one"),
        (lost, "did not come to know"),
        (made_up, "which the venue does not have"),
        (refused_and_placed, "said to be rejected"),
        (unknown, "stayed unknown"),
        (absent_and_placed, "said to be absent"),
        (filled_twice, "delivered 2 times"),
        (never_filled, "never delivered"),
        (foreign, "as a foreign one"),
        (flat_after_the_kill, "shown as 0"),
        (wrong_in_the_end, "in the end, held were"),
        (wrong_status, "filled 9, by the ledger 10"),
        (open_in_the_end, "still open"),
        (back_from_the_dead, "came back from CANCELED"),
        (never_ended, "did not end by itself"),
        (saw_nothing, "saw nothing of the account"),
    ],
)
def test_what_is_wrong_is_found(spoil: Callable[[list[Life], Ledger], None], what: str) -> None:
    lives, ledger = run()
    spoil(lives, ledger)
    assert any(what in problem for problem in problems(lives, ledger)), problems(lives, ledger)
