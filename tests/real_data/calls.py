"""Logs of order calls: what pmkit reads from the answers that a real bot got."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pmkit.exchanges.kalshi.order_replies import created
from pmkit.exchanges.kalshi.orders import CreateOrder, SelfTrade
from pmkit.exchanges.kalshi.refusals import Proof
from pmkit.exchanges.kalshi.sides import book_side, count_text, mirrored, price_text
from pmkit.exchanges.types import OrderId, Side
from tests.real_data.report import Report


def check_log(name: str, rows: Iterable[dict[str, Any]]) -> Report:
    """201 has to be an order id with the fill that the bot saw, 4xx a proven refusal; counts have to add up."""
    report = Report(name)
    for row in rows:
        label = f"{row['ev']} {row['utc'][:19]}"
        try:
            why = _post(row) if row["ev"] == "post" else _end(row) if row["ev"] == "terminal" else None
        except (ValueError, KeyError, SyntaxError, ArithmeticError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], label)
            continue
        if row["ev"] not in ("post", "terminal"):
            report.name_it(f"{row['ev']} with {row.get('status')}: the log has no body", label)
        elif why:
            report.fail(why, label)
        else:
            report.explain()
    return report


def _post(row: dict[str, Any]) -> str:
    answer = ast.literal_eval(row["resp"]) if isinstance(row["resp"], str) else row["resp"]
    outcome = row["side"].upper()
    sent = CreateOrder(
        ticker=row["ticker"],
        side=book_side(outcome, Side.BUY),
        count=count_text(Decimal(str(row["qty"]))),
        price=price_text(mirrored(outcome, Decimal(str(row["price"])))),
        time_in_force="good_till_canceled",
        self_trade_prevention_type=SelfTrade.TAKER_AT_CROSS,
        client_order_id=answer.get("client_order_id") or "unknown",
    )
    found = created(row["status"], json.dumps(answer).encode(), sent, outcome)
    if isinstance(found, OrderId):
        if not 200 <= row["status"] < 300 or found != answer["order_id"]:
            return "an order id where there is none"
        return "" if found.filled_amount == Decimal(row["immediate_fill"] or 0) else "another fill than the bot saw"
    if 200 <= row["status"] < 300:
        return f"an accepted order is read as {found.proof.value}: {found.reason}"
    return "" if found.proof in (Proof.REFUSED, Proof.STALE_STAMP) else f"a refusal proves nothing: {found.reason}"


def _end(row: dict[str, Any]) -> str:
    return "" if row["FILLED"] + row["unfilled"] == row["target"] else "filled and unfilled are not the order's size"
