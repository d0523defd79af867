"""Commands, replies and the steps of healing, on a clock that the test moves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pmkit.clock import ManualClock
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.messages import LIFECYCLE, ORDERBOOK, TRADE
from pmkit.exchanges.kalshi.subscriptions import Key, Subscriptions
from tests.kalshi.frames import T0_NS, T, U, delta, encode, snapshot, subscribed


class Desk:
    """Subscriptions without a socket: what would be sent is in `sent`, dropped connections in `drops`."""

    def __init__(self, *tickers: str, channel: str = ORDERBOOK) -> None:
        self.clock = ManualClock()
        self.feed = BookFeed()
        self.wanted: list[Key] = [(channel, ticker) for ticker in tickers]
        self.drops: list[str] = []
        self.over: set[str] = set()
        for ticker in tickers:
            self.feed.watch(ticker, 10)
        self.subscriptions = Subscriptions(
            self.feed,
            self.clock,
            wanted=lambda: self.wanted,
            drop=self.drop,
            wake=lambda: None,
            is_over=lambda ticker: ticker in self.over,
        )

    def drop(self, reason: str) -> None:
        self.drops.append(reason)
        self.subscriptions.forget()
        self.feed.reset("disconnected: " + reason)

    def first(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.subscriptions.first(self.wanted)]

    def due(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.subscriptions.due()]

    def receive(self, *frames: bytes) -> None:
        for frame in frames:
            self.feed.receive(frame, T0_NS)

    def reply(self, kind: str, **fields: Any) -> None:
        self.receive(encode({"type": kind, **fields}))

    def live(self) -> Desk:
        """Subscribed and with a snapshot of each."""
        self.first()
        self.receive(subscribed(1, id_=1))
        for number, (_, ticker) in enumerate(self.wanted):
            self.receive(snapshot(number + 1, [("0.40", "10")], ticker=ticker))
        assert self.due() == []
        return self


def names(command: dict[str, Any]) -> tuple[str, list[str]]:
    params = command["params"]
    return params.get("action", command["cmd"]), params.get("market_tickers", [])


async def test_the_first_commands_subscribe_one_channel_each() -> None:
    desk = Desk(T, U)
    desk.wanted += [(TRADE, T), (LIFECYCLE, "")]
    commands = desk.first()
    assert [command["cmd"] for command in commands] == ["subscribe"] * 3
    assert [command["params"]["channels"] for command in commands] == [[ORDERBOOK], [TRADE], [LIFECYCLE]]
    assert commands[0]["params"] == {"channels": [ORDERBOOK], "market_tickers": sorted([T, U]), "use_yes_price": False}
    assert "use_yes_price" not in commands[1]["params"]
    assert "market_tickers" not in commands[2]["params"]
    assert len({command["id"] for command in commands}) == 3
    assert not desk.subscriptions.has((LIFECYCLE, ""))
    desk.receive(subscribed(3, LIFECYCLE, id_=commands[2]["id"]))
    assert desk.subscriptions.has((LIFECYCLE, ""))


async def test_md_27_changes_wait_for_the_answer_before_and_go_out_together() -> None:
    desk = Desk(T).live()
    for name in ("A", "B", "C"):
        desk.wanted.append((ORDERBOOK, name))
        desk.subscriptions.touch(ORDERBOOK)
    commands = desk.due()
    assert [names(command) for command in commands] == [("add_markets", ["A", "B", "C"])]
    desk.wanted = [(ORDERBOOK, "A"), (ORDERBOOK, T)]
    desk.subscriptions.touch(ORDERBOOK)
    assert desk.due() == [], "one command of a channel at a time"
    desk.reply("ok", id=commands[0]["id"], sid=1, seq=2, msg={"market_tickers": [T, "A", "B", "C"]})
    assert [names(command) for command in desk.due()] == [("delete_markets", ["B", "C"])]


async def test_replies_that_list_something_else_are_put_right_without_haste() -> None:
    desk = Desk(T).live()
    desk.wanted.append((ORDERBOOK, "A"))
    desk.subscriptions.touch(ORDERBOOK)
    (command,) = desk.due()
    desk.reply("ok", id=command["id"], sid=1, seq=2, msg={"market_tickers": [T]})  # it did not take A
    assert desk.due() == []
    await desk.clock.advance(1.1)
    assert [names(command) for command in desk.due()] == [("add_markets", ["A"])]


async def test_the_last_market_ends_the_subscription_and_a_new_one_waits_for_that() -> None:
    desk = Desk(T).live()
    desk.wanted = []
    desk.subscriptions.touch(ORDERBOOK)
    (command,) = desk.due()
    assert (command["cmd"], command["params"]) == ("unsubscribe", {"sids": [1]})
    desk.wanted = [(ORDERBOOK, U)]
    desk.feed.watch(U, 10)
    desk.subscriptions.touch(ORDERBOOK)
    assert desk.due() == [], "Kalshi may answer out of order: the new subscription could be ended with the old"
    desk.receive(delta(2, "yes", "0.40", "1"))
    assert desk.feed.foreign == 1
    desk.reply("unsubscribed", id=command["id"], sid=1, seq=3)
    assert [names(one) for one in desk.due()] == [("subscribe", [U])]


async def test_md_06_a_command_without_an_answer_ends_the_connection() -> None:
    desk = Desk(T)
    desk.first()
    await desk.clock.advance(4.9)
    assert desk.due() == []
    assert not desk.drops
    await desk.clock.advance(0.2)
    assert desk.due() == []
    assert desk.drops == ["no answer to subscribe within 5 s"]
    assert desk.subscriptions.unanswered == 1
    assert desk.due() == []


@pytest.mark.parametrize("code", [2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 26])
async def test_md_06_a_refusal_is_kept_and_not_asked_again(code: int) -> None:
    desk = Desk(T)
    (command,) = desk.first()
    desk.reply("error", id=command["id"], msg={"code": code, "msg": "no\x1b[31m"})
    said = desk.subscriptions.refused[(ORDERBOOK, T)]
    assert f"code {code}" in said
    assert "\x1b" not in said
    for _ in range(5):
        await desk.clock.advance(10)
        assert desk.due() == []
    assert not desk.drops
    assert "refused" in desk.feed.pairs[T].yes.reason
    desk.subscriptions.forget()
    assert not desk.subscriptions.refused, "a new connection asks anew"


async def test_md_06_a_refusal_of_one_market_leaves_the_others() -> None:
    desk = Desk(T).live()
    desk.wanted += [(ORDERBOOK, "A"), (ORDERBOOK, "B")]
    desk.subscriptions.touch(ORDERBOOK)
    (command,) = desk.due()
    desk.reply("error", id=command["id"], sid=1, seq=2, msg={"code": 11, "msg": "x", "market_ticker": "A"})
    assert set(desk.subscriptions.refused) == {(ORDERBOOK, "A")}
    assert [names(one) for one in desk.due()] == [("add_markets", ["B"])]
    assert desk.feed.pairs[T].yes.valid


@pytest.mark.parametrize("code", [1, 18, 27, 99])
async def test_md_06_other_errors_are_asked_again_after_a_second(code: int) -> None:
    desk = Desk(T)
    (command,) = desk.first()
    desk.reply("error", id=command["id"], msg={"code": code, "msg": "later"})
    assert desk.due() == []
    await desk.clock.advance(1.1)
    assert [names(one) for one in desk.due()] == [("subscribe", [T])]
    assert not desk.subscriptions.refused


async def test_an_unknown_sid_subscribes_again() -> None:
    desk = Desk(T).live()
    desk.wanted.append((ORDERBOOK, U))
    desk.feed.watch(U, 10)
    desk.subscriptions.touch(ORDERBOOK)
    (command,) = desk.due()
    desk.reply("error", id=command["id"], msg={"code": 7, "msg": "Unknown subscription ID"})
    assert not desk.feed.pairs[T].yes.valid
    assert [names(one) for one in desk.due()] == [("subscribe", sorted([T, U]))]


async def test_md_07_healing_goes_step_by_step_snapshot_subscription_connection() -> None:
    desk = Desk(T, U).live()
    desk.receive(delta(9, "yes", "0.40", "1"))  # a gap
    (command,) = desk.due()
    assert names(command) == ("get_snapshot", sorted([T, U]))
    await desk.clock.advance(4.9)
    assert desk.due() == []
    await desk.clock.advance(0.2)  # no snapshot came
    (command,) = desk.due()
    assert command["cmd"] == "unsubscribe"
    desk.reply("unsubscribed", id=command["id"], sid=1, seq=12)
    (command,) = desk.due()
    assert names(command) == ("subscribe", sorted([T, U]))
    desk.receive(subscribed(2, id_=command["id"]))
    await desk.clock.advance(5.1)  # again no snapshot
    assert desk.due() == []
    assert len(desk.drops) == 1
    assert "no snapshot of 2 books" in desk.drops[0]


async def test_md_07_a_second_gap_soon_after_subscribes_again_and_a_third_connects_again() -> None:
    desk = Desk(T).live()
    desk.receive(delta(9, "yes", "0.40", "1"))
    assert [names(one)[0] for one in desk.due()] == ["get_snapshot"]
    desk.receive(snapshot(10, [("0.30", "1")]))
    assert desk.feed.pairs[T].yes.valid
    await desk.clock.advance(2)
    desk.receive(delta(20, "yes", "0.30", "1"))
    (command,) = desk.due()
    assert command["cmd"] == "unsubscribe"
    desk.reply("unsubscribed", id=command["id"], sid=1, seq=21)
    (command,) = desk.due()
    desk.receive(subscribed(2, id_=command["id"]), snapshot(1, [("0.30", "1")], sid=2))
    assert desk.feed.pairs[T].yes.valid
    desk.receive(delta(9, "yes", "0.30", "1", sid=2))
    assert desk.drops == ["sequence gap, for the third time within 10 s"]


async def test_md_07_gaps_that_are_far_apart_cost_a_snapshot_each() -> None:
    desk = Desk(T).live()
    seq = 9
    for _ in range(5):
        desk.receive(delta(seq, "yes", "0.40", "1"))
        assert [names(one)[0] for one in desk.due()] == ["get_snapshot"]
        desk.receive(snapshot(seq + 1, [("0.30", "1")]))
        assert desk.feed.pairs[T].yes.valid
        seq += 10
        await desk.clock.advance(11)
        assert desk.due() == []
    assert not desk.drops


async def test_a_finer_grid_is_no_fault_of_the_connection() -> None:
    desk = Desk(T).live()
    for seq, unit in enumerate((5, 1), 2):
        desk.feed.regrid(T, unit)
        assert [names(one)[0] for one in desk.due()] == ["get_snapshot"]
        desk.receive(snapshot(seq, [("0.40", "1")]))
        assert desk.feed.pairs[T].yes.unit == unit
    assert desk.subscriptions.resyncs == 0
    assert not desk.drops


async def test_a_market_that_is_over_is_not_waited_for() -> None:
    desk = Desk(T, U)
    desk.first()
    desk.receive(subscribed(1, id_=1), snapshot(1, [("0.4", "1")], ticker=U))
    desk.over.add(T)
    await desk.clock.advance(30)
    assert desk.due() == []
    assert not desk.drops


async def test_a_book_that_is_wanted_again_before_the_venue_was_told_gets_its_snapshot() -> None:
    desk = Desk(T).live()
    desk.feed.forget(T)
    desk.feed.watch(T, 10)  # unsubscribed and subscribed again at once: for the venue nothing has changed
    assert [names(one) for one in desk.due()] == [("get_snapshot", [T])]
    desk.receive(snapshot(2, [("0.30", "1")]))
    assert desk.feed.pairs[T].yes.valid


@pytest.mark.parametrize("code", [10, 25])
async def test_an_ended_subscription_is_subscribed_again_and_at_last_connected_again(code: int) -> None:
    desk = Desk(T).live()
    for sid in (1, 2):
        desk.reply("error", sid=sid, seq=2, msg={"code": code, "msg": "over"})
        assert not desk.feed.pairs[T].yes.valid
        await desk.clock.advance(1.1)
        (command,) = desk.due()
        assert names(command) == ("subscribe", [T])
        desk.receive(subscribed(sid + 1, id_=command["id"]), snapshot(1, [("0.3", "1")], sid=sid + 1))
        assert desk.feed.pairs[T].yes.valid
    desk.reply("error", sid=3, seq=2, msg={"code": code, "msg": "over"})
    assert len(desk.drops) == 1


async def test_replies_of_an_earlier_connection_mean_nothing() -> None:
    desk = Desk(T)
    (old,) = desk.first()
    desk.subscriptions.forget()
    (new,) = desk.first()
    assert new["id"] != old["id"]
    desk.reply("error", id=old["id"], msg={"code": 9, "msg": "Authentication required"})
    assert not desk.subscriptions.refused
