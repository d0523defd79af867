"""One Polymarket order, from intent to bytes and headers: pmkit beside the official clients, in one interleaved run.

    python -m benchmarks.polymarket_orders [--rounds 7] [--orders 200] [--peer-python PATH] [--json FILE]

Every contender checks price and size, builds the order, signs it, serialises the body once and makes the five L2
headers; market facts are given and nothing is sent. Peers run in processes of their own, each with coincurve and with
the pure-Python backend it installs by default. `--peer-python` names the interpreter they are installed for (default:
this one); a peer that cannot be imported is skipped and said so.

The last lines are of a whole `place_limit_order` against a venue in another process: CPU of this process in pmkit
beside that in its HTTP call, which is made by the session, over TLS and with a dated answer as at the venue. What
stands in for the call where pmkit is measured alone is not pmkit's and is subtracted.

An untimed pass compares: pmkit rebuilds every peer's order from its salt and time, and body and headers have to be
equal. Prints one JSON object per case and contender, then a table. Times are CPU times of each contender's process. Use
the ratios: they are medians of per-round ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import _orders_contenders
from benchmarks._orders_contenders import (
    ADDRESS,
    CREDENTIALS,
    DEPOSIT_WALLET,
    KEY,
    PRICE,
    SIZE,
    TOKEN,
    pmkit_order,
    sample_market,
    signing_alone,
    timed,
)
from benchmarks._orders_server import certificate

CASES = {"type 0": (0, ADDRESS), "type 3": (3, DEPOSIT_WALLET)}
PEERS = ("py-clob-client-v2", "polymarket-client")
BACKENDS = {"coincurve": "eth_keys.backends.CoinCurveECCBackend", "as installed": "eth_keys.backends.NativeECCBackend"}
GOALS = {"polymarket-client, coincurve": 8.0, "polymarket-client, as installed": 50.0}
"""Least ratio peer / pmkit: of the official client of today. The older one is shown beside it, without a goal."""

PATH_GOAL = 0.10
"""Most CPU of an order beside its HTTP call, as a share of that call."""

PATH_CASES = ("order path", "order path without TLS")
"""The goal is for the first: credentials go over TLS only. The second is what can be compared with older figures."""

BLOCK = 10
"""Orders of one kind in a row."""


class Peer:
    """One running worker."""

    def __init__(self, python: str, name: str, backend: str, kind: int, funder: str) -> None:
        self._process = subprocess.Popen(
            [python, _orders_contenders.__file__, name, str(kind), funder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"ECC_BACKEND_CLASS": backend},
        )
        self.about: dict[str, Any] = json.loads(self._line() or '{"skipped": "its process ended"}')

    def run(self, count: int) -> float:
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)
        return float(json.loads(self._line()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def check(peer: Peer, kind: int, funder: str) -> None:
    """pmkit makes the same order of the peer's salt and time. Raises SystemExit where anything differs."""
    from pmkit.exchanges.polymarket.auth import Credentials, Signer
    from pmkit.exchanges.polymarket.eip712 import exchange_for
    from pmkit.exchanges.polymarket.order_plan import OrderPlan
    from pmkit.exchanges.polymarket.orders import OrderSigner
    from pmkit.exchanges.types import Side, TimeInForce

    theirs = json.loads(peer.about["body"])
    order = theirs["order"]
    plan = OrderPlan(
        token_id=TOKEN,
        exchange=exchange_for(TOKEN, False),
        side=Side.BUY,
        maker_amount=70_366_500,
        taker_amount=123_450_000,
        time_in_force=TimeInForce.GTC,
    )
    account = OrderSigner(Signer(KEY), CREDENTIALS[0], funder=funder, signature_type=kind)
    ours = json.loads(account.sign(plan, int(order["salt"]), int(order["timestamp"])).body)
    theirs.pop("postOnly", None)  # one client says false instead of nothing
    if ours != theirs:
        raise SystemExit(f"the orders differ: {ours} and {theirs}: no comparison")
    stamp = int(peer.about["headers"]["POLY_TIMESTAMP"])
    made = Credentials(ADDRESS, *CREDENTIALS).headers(stamp, "POST", "/order", peer.about["body"].encode())
    if made != peer.about["headers"]:
        raise SystemExit(f"the headers differ: {made} and {peer.about['headers']}: no comparison")


def other_work() -> float:
    """What a bot does between two orders, as far as the processor's caches can tell: text, numbers, megabytes."""
    rows = [json.loads(json.dumps({"price": str(number / 7), "levels": [number, [number]]})) for number in range(500)]
    return sum(float(row["price"]) for row in rows) + sum(bytes(6_000_000)[::64])


# -- the whole order path -------------------------------------------------------------------------------------------


async def path_times(options: argparse.Namespace, certificates: Path | None) -> dict[str, list[float]]:
    """CPU microseconds of this process per order and round: `whole` of a `place_limit_order` against a venue in another
    process, `call` of its HTTP call alone (same session, body and headers), `own` of a `place_limit_order` whose call
    answers at once: what pmkit itself does. `whole_apart` and `call_apart` are of one each after other work, which is
    how orders mostly come. With TLS, as every order to the venue has it, where `certificates` is a folder for them.
    """
    import msgspec

    from pmkit import http_pool
    from pmkit.clock import SystemClock
    from pmkit.config.secret import Secret
    from pmkit.endpoints import Endpoints
    from pmkit.exchanges.polymarket.client import PolymarketExchange
    from pmkit.exchanges.types import Side

    command = [sys.executable, "-m", "benchmarks._orders_server"]
    loading, scheme = http_pool._tls, "http"
    if certificates is not None:
        context = certificate(certificates)
        http_pool._tls, scheme = lambda trust_env: context, "https"  # type: ignore[assignment]
        command.append(str(certificates))
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert server.stdout is not None and server.stdin is not None
    real = Endpoints.real()
    clob = f"{scheme}://127.0.0.1:{int(server.stdout.readline())}"
    endpoints = msgspec.structs.replace(real, polymarket=msgspec.structs.replace(real.polymarket, clob=clob))
    exchange = PolymarketExchange(
        endpoints, SystemClock(), private_key=Secret(KEY), signature_type=0, credentials=CREDENTIALS
    )
    market = sample_market()
    exchange.data.catalogue.store(market)
    session = exchange._http.orders
    post = session.request
    records = exchange.journal.records

    async def place() -> str:
        return str(await exchange.place_limit_order(market, "UP", Side.BUY, PRICE, SIZE))

    async def answered(*_: Any, **__: Any) -> Any:
        return msgspec.structs.replace(answer, body=answer.body.replace(sent_id, next(reversed(records)).encode()))

    async def block(what: Callable[[], Awaitable[Any]]) -> float:
        await what()  # untimed: what ran before emptied the caches
        began = time.process_time_ns()
        for _ in range(BLOCK):
            await what()
        return (time.process_time_ns() - began) / BLOCK / 1000

    async def apart(what: Callable[[], Awaitable[Any]]) -> float:
        other_work()
        await asyncio.sleep(0.002)
        other_work()
        began = time.process_time_ns()
        await what()
        return (time.process_time_ns() - began) / 1000

    times: dict[str, list[float]] = {"whole": [], "call": [], "own": [], "whole_apart": [], "call_apart": []}
    try:
        await exchange.keep_warm()
        identity = await exchange.login.ready()
        for turn in range(options.rounds + 1):
            found: dict[str, list[float]] = {name: [] for name in times}
            for _ in range(max(1, options.posts // BLOCK)):  # in turns: what else this machine does hits all of them
                found["whole"].append(await block(place))
                order_id = await place()
                sent, sent_id = records[order_id].sent, order_id.encode()
                headers = sent.headers(identity.credentials, int(time.time())) | {"content-type": "application/json"}
                call = functools.partial(post, "POST", "/order", body=sent.body, headers=headers, wait=False)
                answer = await call()
                found["call"].append(await block(call))
                session.request = answered  # type: ignore[method-assign]
                found["own"].append(await block(place) - await block(answered))
                session.request = post  # type: ignore[method-assign]
                found["call_apart"].append(await apart(call))
                found["whole_apart"].append(await apart(place))
            if turn:  # the first round opens the connection and loads what is loaded late
                for name, values in found.items():
                    times[name].append(statistics.median(values))
    finally:
        http_pool._tls = loading
        await exchange.close()
        server.stdin.close()
        server.wait(10)
    return times


def order_path(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU of an order beside its HTTP call."""
    with tempfile.TemporaryDirectory() as folder:
        times = asyncio.run(path_times(options, Path(folder) if case == PATH_CASES[0] else None))
    own = [mine / call for mine, call in zip(times["own"], times["call"], strict=True)]
    in_turns = [whole / call - 1 for whole, call in zip(times["whole"], times["call"], strict=True)]
    apart = [whole / call - 1 for whole, call in zip(times["whole_apart"], times["call_apart"], strict=True)]
    return {
        "bench": "polymarket_orders", "case": case, "contender": "pmkit", "unit": "us of CPU per order",
        "rounds": options.rounds, **{name: round(statistics.median(found), 1) for name, found in times.items()},
        "own_to_call": round(statistics.median(own), 3), "lo": round(min(own), 3), "hi": round(max(own), 3),
        "whole_above_call": round(statistics.median(in_turns), 3), "apart": round(statistics.median(apart), 3),
    }  # fmt: skip


def told(path: dict[str, Any]) -> str:
    """The sentence of an order path."""
    share, goal = path["own_to_call"], ""
    if path["case"] == PATH_CASES[0]:
        goal = f" <= {PATH_GOAL:.0%} {'met' if share <= PATH_GOAL else 'MISSED'}."
    return (
        f"{path['case']}: {path['own']:.0f} us of CPU in pmkit, {path['call']:.0f} in the HTTP call: {share:.1%} "
        f"({path['lo']:.1%} - {path['hi']:.1%}) of it.{goal} Both in turns, each with the processor's caches emptied "
        f"by the other, come to {path['whole']:.0f}: {path['whole_above_call']:.1%} above calls in a row. After other "
        f"work, {path['whole_apart']:.0f}: {path['apart']:.1%} above a call after other work"
    )


def measure(case: str, kind: int, funder: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per contender."""
    own, floor = pmkit_order(kind, funder), signing_alone()
    peers: dict[str, Peer] = {}
    try:
        for name in PEERS:
            for word, backend in BACKENDS.items():
                peer = Peer(options.peer_python, name, backend, kind, funder)
                peers[f"{name}, {word}"] = peer
                if "skipped" not in peer.about:
                    check(peer, kind, funder)
        alive = {name: peer for name, peer in peers.items() if "skipped" not in peer.about}
        times: dict[str, list[float]] = {name: [] for name in ("pmkit", "signature alone", *alive)}
        timed(own, options.orders)
        for _ in range(options.rounds):
            times["pmkit"].append(timed(own, options.orders))
            times["signature alone"].append(timed(floor, options.orders))
            for name, peer in alive.items():
                slow = 20 if "as installed" in name else 4
                times[name].append(peer.run(max(options.orders // slow, 5)))
    finally:
        for peer in peers.values():
            peer.close()
    for name, values in times.items():
        ratios = [value / mine for value, mine in zip(values, times["pmkit"], strict=True)]
        yield {
            "bench": "polymarket_orders", "case": case, "contender": name, "unit": "us/order", "rounds": len(values),
            "median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1),
            "ratio_to_pmkit": round(statistics.median(ratios), 2),
            "ratio_lo": round(min(ratios), 2), "ratio_hi": round(max(ratios), 2),
            "version": peers[name].about.get("version") if name in peers else None,
        }  # fmt: skip
    for name, peer in peers.items():
        if "skipped" in peer.about:
            yield {"bench": "polymarket_orders", "case": case, "contender": name, "skipped": peer.about["skipped"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polymarket_orders", description="One signed order.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--orders", type=int, default=200, help="per round; slower contenders make fewer")
    parser.add_argument("--posts", type=int, default=100, help="orders placed per round on the whole order path")
    parser.add_argument("--peer-python", default=os.environ.get("PMKIT_PEER_PYTHON", sys.executable))
    parser.add_argument("--json", type=Path, help="also write the JSON objects to this file, one per line")
    options = parser.parse_args()
    rows = [row for case, (kind, funder) in CASES.items() for row in measure(case, kind, funder, options)]
    paths = [order_path(case, options) for case in PATH_CASES]
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [json.dumps(found | {"machine": machine}) for found in [*rows, *paths]]
    print("\n".join(lines))
    if options.json:
        options.json.write_text("".join(f"{line}\n" for line in lines))
    print(f"\n{'case':<8} {'contender':<32} {'us/order':>9} {'x pmkit':>8} {'lo - hi':>17}  goal")
    for found in rows:
        if "skipped" in found:
            print(f"{found['case']:<8} {found['contender']:<32} skipped: {found['skipped']}")
            continue
        ratio, goal = found["ratio_to_pmkit"], GOALS.get(found["contender"])
        verdict = "" if goal is None else f">= {goal:g} {'met' if ratio >= goal else 'MISSED'}"
        spread = f"{found['ratio_lo']:.2f} - {found['ratio_hi']:.2f}"
        print(
            f"{found['case']:<8} {found['contender']:<32} {found['median']:>9.1f} {ratio:>8.2f} {spread:>17}  {verdict}"
        )
    print("\n" + "\n".join(told(path) for path in paths))


if __name__ == "__main__":
    main()
