"""What a soak must show: the notes of all lives against the venue's ledger. Returns everything that is not so."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.soak.ledger import Booked, Ledger, Token
from tests.soak.trader import VIEWS_UNTIL

Note = dict[str, Any]
OVER = ("FILLED", "CANCELED", "EXPIRED", "REJECTED")
SETTLING_SECONDS = 3.0
"""Before a kill: a fill so young need not have come yet."""


@dataclass(slots=True)
class Life:
    """One trading process. `ended`: when it was killed, None where it ended by itself; `quiet`: its user stream was
    silenced at times, so that a fill may have waited for the next look over REST.
    """

    number: int
    started: float
    ended: float | None = None
    quiet: bool = False
    notes: list[Note] = field(default_factory=list)

    def of(self, *words: str) -> list[Note]:
        return [note for note in self.notes if note["what"] in words]


@dataclass(slots=True)
class _Intent:
    """One decision to place one order. `order`: the venue's id, as far as the trader was told."""

    note: Note
    order: str | None = None
    outcome: str = ""

    @property
    def client(self) -> str:
        return str(self.note["client"])


def problems(lives: list[Life], ledger: Ledger) -> list[str]:
    """Everything that is wrong, in words."""
    intents = _intents(lives)
    found = [*_failures(lives), *_orders(intents, ledger), *_resolved(lives, intents, ledger)]
    for before, life in zip([None, *lives], lives, strict=False):
        found += _known(life, ledger)
        found += _positions(life, ledger)
        found += _fills(life, ledger)
        found += _states(life)
        if before is not None:
            found += _missed(before, life, ledger)
    return [*found, *_last(lives[-1], ledger)]


def counts(lives: list[Life], ledger: Ledger) -> Counter[str]:
    """How much of everything there was, for the report and against runs that test nothing."""
    found: Counter[str] = Counter()
    for life in lives:
        found["lives"] += 1
        found["killed"] += life.ended is not None
        found.update(note["what"] for note in life.notes)
        found["looked within 10 s"] += bool(_views(life))
        found["absent"] += sum(note["order"] is None for note in life.of("resolved"))
    found["booked"] = len(ledger.orders)
    found["matches"] = len(ledger.legs)
    found["failed matches"] = sum(leg.state == "FAILED" for leg in ledger.legs.values())
    return found


def _failures(lives: list[Life]) -> Iterator[str]:
    for life in lives:
        for note in life.of("failed"):
            yield f"life {life.number}: {note['error']}"


# -- orders -----------------------------------------------------------------------------------------------------------


def _intents(lives: list[Life]) -> dict[str, _Intent]:
    found: dict[str, _Intent] = {}
    for life in lives:
        for note in life.notes:
            what, client = note["what"], str(note.get("client"))
            if what == "intent":
                found[client] = _Intent(note)
            elif what in ("accepted", "rejected", "not_sent", "unknown", "resolved", "amended"):
                intent = found[client]
                intent.outcome = what
                if what == "accepted":
                    intent.order = note["order"]
                elif what == "unknown":
                    intent.order = note["intent"]["order_id"]
                elif what == "resolved":
                    intent.order = note["order"]
                    intent.outcome = "accepted" if note["order"] else "absent"
    return found


def _orders(intents: dict[str, _Intent], ledger: Ledger) -> Iterator[str]:
    """No order twice and none made up: each order of the ledger belongs to one intent, each intent to one order."""
    by_id: dict[str, str] = {}
    for intent in intents.values():
        if intent.order is not None:
            if intent.order in by_id:
                yield f"{intent.order} was told for two intents: {by_id[intent.order]} and {intent.client}"
            by_id[intent.order] = intent.client
    claimed: dict[str, str] = {}
    cut_off = [one for one in intents.values() if one.outcome in ("", "unknown") and one.order is None]
    for order in ledger.orders.values():
        client = order.client_order_id or by_id.get(order.order_id)
        if client is None:
            cut = next((one for one in cut_off if _fits(one.note, order)), None)
            if cut is None:
                yield f"the venue has an order that nobody placed, or a second one of an intent: {order}"
                continue
            cut_off.remove(cut)
            client = cut.client
        if client in claimed:
            yield f"intent {client} was placed twice: {claimed[client]} and {order.order_id}"
        claimed[client] = order.order_id
        intent = intents.get(client)
        if intent is None:
            yield f"the venue has an order of an intent that there is not: {order}"
        elif intent.outcome in ("rejected", "not_sent", "absent"):
            if order.refused and intent.outcome == "rejected":
                continue
            yield f"intent {client} was said to be {intent.outcome}, and the venue has {order}"
    for note_order, client in by_id.items():
        if intents[client].outcome == "accepted" and note_order not in ledger.orders and not _killed(intents[client]):
            yield f"intent {client} was said to be accepted as {note_order}, which the venue does not have"


def _killed(intent: _Intent) -> bool:
    """An order that only takes and found nothing: the venue need not keep it."""
    return intent.note["size"] is None


def _fits(note: Note, order: Booked) -> bool:
    if (note["market"], note["outcome"]) != order.token or note["side"] != order.side or order.at < note["t"] - 0.1:
        return False
    if note["size"] is None:
        return order.size is None
    return (order.price, order.size) == (Decimal(note["price"]), Decimal(note["size"]))


def _resolved(lives: list[Life], intents: dict[str, _Intent], ledger: Ledger) -> Iterator[str]:
    """Every unknown outcome was resolved, and truly so."""
    for intent in intents.values():
        if intent.outcome == "unknown":
            yield f"intent {intent.client} stayed unknown"
    for life in lives:
        for note in life.of("resolved"):
            if note["order"] is not None and note["took"] and note["order"] not in ledger.orders:
                yield f"{note['order']} was resolved as accepted, and the venue does not have it"


# -- what a restarted bot knows ---------------------------------------------------------------------------------------


def _views(life: Life) -> list[Note]:
    """What it saw of the account in its first ten seconds."""
    return [note for note in life.of("view") if note["t"] <= _began(life) + VIEWS_UNTIL]


def _began(life: Life) -> float:
    return next((note["t"] for note in life.of("start")), math.inf)


def _known(life: Life, ledger: Ledger) -> Iterator[str]:
    """Every order of the ledger is known within ten seconds of a restart: open, traded, or over with nothing filled."""
    views = _views(life)
    if not views:
        if _ends(life) > _began(life) + VIEWS_UNTIL:
            yield f"life {life.number} saw nothing of the account within {VIEWS_UNTIL:g} s"
        return
    seen = {order_id for view in views for order_id in view["open"]}
    seen |= {order_id for view in views for _, order_id in view["trades"]}
    last = views[-1]
    for order in ledger.orders.values():
        if order.at >= last["began"] or order.order_id in seen:
            continue
        over = order.ended is not None and order.ended <= last["t"]
        stands = any(
            leg.order_id == order.order_id and leg.state != "FAILED" and leg.at < last["began"] - 0.5
            for leg in ledger.legs.values()
        )
        if stands or not over:
            yield f"life {life.number} did not come to know {order} within {VIEWS_UNTIL:g} s"


def _positions(life: Life, ledger: Ledger) -> Iterator[str]:
    """Each look at the positions shows what was held at some moment of that look, the first one after a kill too."""
    for view in life.of("view", "last"):
        shown = _sizes(view)
        for token in ledger.tokens() | set(shown):
            held = ledger.held_between(token, view["began"] - 0.02, view["looked"] + 0.02)
            if not any(ledger.same(token, shown.get(token), size) for size in held):
                yield (
                    f"life {life.number}, {view['began'] - life.started:.1f} s after its start: {token} shown as "
                    f"{shown.get(token, Decimal(0))}, held were {sorted(held)}"
                )


def _sizes(view: Note) -> dict[Token, Decimal]:
    return {(market, outcome): Decimal(size) for market, outcome, size in view["positions"]}


# -- fills ------------------------------------------------------------------------------------------------------------


def _fills(life: Life, ledger: Ledger) -> Iterator[str]:
    """Each once per state, none taken back after it was final, none made up, none left out, its own known as such."""
    told = Counter((note["fill"], note["order"], note["state"]) for note in life.of("fill"))
    for key, times in told.items():
        if times > 1:
            yield f"life {life.number}: fill {key} was delivered {times} times"
    by_leg: dict[tuple[str, str], list[str]] = defaultdict(list)
    # An intent of an earlier life may be looked up in this one: its order is not one that this process placed.
    mine = {note["client"] for note in life.of("intent")}
    own = {note["order"] for note in life.of("accepted", "resolved") if note["client"] in mine}
    for note in life.of("fill"):
        key = (note["fill"], note["order"])
        by_leg[key].append(note["state"])
        leg = ledger.legs.get(key)
        if leg is None:
            yield f"life {life.number}: fill {key} is not in the ledger"
        elif ledger.terms(leg.token, leg.shares, leg.price) != ledger.terms(
            (note["market"], note["outcome"]), Decimal(note["shares"]), Decimal(note["price"])
        ):
            yield f"life {life.number}: fill {note} is {leg} in the ledger"
        if not note["own"] and note["order"] in own:
            yield f"life {life.number}: fill {key} of an own order was delivered as a foreign one"
    for key, states in by_leg.items():
        if "PENDING" in states[1:] or len([state for state in states if state != "PENDING"]) > 1:
            yield f"life {life.number}: fill {key} went through {states}"
    ready = next((note["t"] for note in life.of("ready")), None)
    if ready is None:
        return
    until = _ends(life) - (10 if life.quiet else SETTLING_SECONDS)
    for key, leg in ledger.legs.items():
        if ready < leg.at < until and key not in by_leg:
            yield f"life {life.number}: {leg} of {leg.at - ready:.1f} s after it was ready was never delivered"
    if life.ended is None:
        for key, leg in ledger.legs.items():
            if leg.at > ready and by_leg.get(key, [""])[-1] != leg.state:
                yield f"life {life.number}: {leg} was last delivered as {by_leg.get(key)}"


def _missed(before: Life, life: Life, ledger: Ledger) -> Iterator[str]:
    """What the killed process was not told of, the next one finds in the history."""
    views = _views(life)
    if not views:
        return
    told = {(note["fill"], note["order"]) for note in before.of("fill")}
    told |= {(fill, order) for view in views for fill, order in view["trades"]}
    for key, leg in ledger.legs.items():
        if before.started < leg.at < views[0]["began"] - 0.1 and key not in told and leg.state != "FAILED":
            yield f"life {life.number} was not told of {leg}, and does not see it in the history"


def _ends(life: Life) -> float:
    return life.ended if life.ended is not None else max(note["t"] for note in life.notes or [{"t": life.started}])


def _states(life: Life) -> Iterator[str]:
    """An order that is over stays over, and is never filled less than before, unless a match failed."""
    last: dict[str, Note] = {}
    failed = {note["order"] for note in life.of("fill") if note["state"] == "FAILED"}
    for note in life.of("order"):
        old = last.get(note["order"])
        if old is not None and old["state"] in OVER and note["state"] not in OVER:
            yield f"life {life.number}: {note['order']} came back from {old['state']} as {note['state']}"
        less = old is not None and Decimal(note["filled"]) < Decimal(old["filled"])
        if old is not None and less and note["order"] not in failed:
            yield f"life {life.number}: {note['order']} was filled {old['filled']}, then {note['filled']}"
        last[note["order"]] = note


# -- the end ----------------------------------------------------------------------------------------------------------


def _last(life: Life, ledger: Ledger) -> Iterator[str]:
    """The last process ended by itself, with nothing open, every order over and the ledger's own position."""
    if not life.of("done"):
        yield f"life {life.number} did not end by itself: {_tail(life.notes)}"
        return
    (view,) = life.of("last")
    shown = _sizes(view)
    for token in ledger.tokens() | set(shown):
        # At the moment of the look: a market may be settled while every order is looked at once more.
        held = ledger.held_between(token, view["looked"], view["looked"])
        if not any(ledger.same(token, shown.get(token), size) for size in held):
            yield f"{token} is shown as {shown.get(token)} in the end, held were {sorted(held)}"
    for order in ledger.orders.values():
        if order.ended is None:
            yield f"{order} is still open at the venue"
    for note in life.of("status"):
        if note["state"] not in OVER:
            yield f"{note['order']} is said to be {note['state']} in the end"
        if Decimal(note["filled"]) != ledger.filled(note["order"]):
            yield f"{note['order']} is said to be filled {note['filled']}, by the ledger {ledger.filled(note['order'])}"


def _tail(notes: Iterable[Note]) -> str:
    return "; ".join(f"{note['what']}" for note in list(notes)[-3:]) or "no notes"
