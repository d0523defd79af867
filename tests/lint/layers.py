"""The layers of pmkit and the reading of imports; `tests/test_layers.py` compares the tree with it.

Imports go down or sideways, never up. From the bottom:

* **ground**: errors, time, addresses, streams, HTTP and socket sessions, configuration, logs, prompts. Knows no venue.
* **wire**: pure: parse, sign, round, apply to a book. No I/O, no clock, no logging: of the ground only `pmkit.errors`.
* **clients**: thin asyncio shells around the wire.
* **composition**: the dry-run, the bot, the local venues, replays.

A new module fails the test until it has a row in `LAYER_OF`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = "pmkit"
"""`pmkit/__init__.py` only re-exports; nothing inside imports from it."""

GROUND, WIRE, CLIENTS, COMPOSITION = 0, 1, 2, 3
NAMES = ("ground", "wire", "clients", "composition")

_GROUND = """
    version errors clock venue_clock wakeup outlive endpoints streams http
    config config.dotenv config.env config.keys config.secret config.values
    logging logging.csv_logger logging.files logging.limits logging.logger logging.paths logging.redact logging.sinks
    logging.text logging.writer
    prompts prompts.inquirer
    http_cookies http_pool websocket.recorded recording recording.file recording.lines recording.recorder
    websocket websocket.backoff websocket.base websocket.deadlines websocket.failures websocket.link websocket.reports
    websocket.connection websocket.supervisor websocket.transport
"""
_WIRE = """
    exchanges exchanges.types exchanges.market exchanges.numbers exchanges.depth exchanges.orderbook exchanges.mirror
    data data.binance data.binance.types data.binance.rows data.binance.plan
    exchanges.polymarket exchanges.polymarket.messages exchanges.polymarket.types exchanges.polymarket.orders
    exchanges.polymarket.auth exchanges.polymarket.fees exchanges.polymarket.refusals
    exchanges.polymarket.eip712 exchanges.polymarket.keccak exchanges.polymarket.secp256k1
    exchanges.polymarket.wallets exchanges.polymarket.amounts
    exchanges.polymarket.order_plan exchanges.polymarket.answers exchanges.polymarket.states
    exchanges.polymarket.fields exchanges.polymarket.user_messages exchanges.polymarket.reference_messages
    exchanges.polymarket.book_feed exchanges.polymarket.live_book exchanges.polymarket.prints
    exchanges.polymarket.recent
    exchanges.polymarket.resolution
    exchanges.polymarket.contracts exchanges.polymarket.calldata exchanges.polymarket.wallet_actions
    exchanges.polymarket.relayer_messages exchanges.polymarket.transactions
    exchanges.polymarket.redeem_types exchanges.polymarket.redeem_verdict exchanges.polymarket.position_ids
    exchanges.kalshi exchanges.kalshi.messages exchanges.kalshi.types exchanges.kalshi.orders
    exchanges.kalshi.auth exchanges.kalshi.fees exchanges.kalshi.refusals
    exchanges.kalshi.book_feed exchanges.kalshi.book_pair exchanges.kalshi.grid exchanges.kalshi.rest_messages
    exchanges.kalshi.sequence exchanges.kalshi.schedule exchanges.kalshi.sides exchanges.kalshi.tickers
    exchanges.kalshi.order_replies exchanges.kalshi.user_messages exchanges.kalshi.user_types exchanges.kalshi.candles
"""
_CLIENTS = """
    data.storage data.candle_file data.binance.archive data.binance.buffer data.binance.bulk data.binance.feed
    data.binance.fetcher data.binance.hosts data.binance.gaps data.binance.history data.binance.join
    data.binance.kline_ws data.binance.pipeline data.binance.series data.binance.weights
    exchanges.base
    exchanges.polymarket.market_data exchanges.polymarket.orderbook_ws exchanges.polymarket.reference_ws
    exchanges.polymarket.market_finder exchanges.polymarket.client exchanges.polymarket.user_ws
    exchanges.polymarket.redeem exchanges.polymarket.catalogue exchanges.polymarket.settlement
    exchanges.polymarket.subscriptions exchanges.polymarket.market_watch
    exchanges.polymarket.limits exchanges.polymarket.signed_http exchanges.polymarket.credentials
    exchanges.polymarket.journal exchanges.polymarket.order_queries exchanges.polymarket.order_lookup
    exchanges.polymarket.order_entry exchanges.polymarket.cancels exchanges.polymarket.account_stream
    exchanges.polymarket.account exchanges.polymarket.heartbeat exchanges.polymarket.history
    exchanges.polymarket.order_intent exchanges.polymarket.deposit_wallet
    exchanges.polymarket.chain exchanges.polymarket.transaction_sender exchanges.polymarket.relayer
    exchanges.polymarket.redeem_plan exchanges.polymarket.redeem_view exchanges.polymarket.position_rows
    exchanges.polymarket.winnings exchanges.polymarket.redeem_side exchanges.polymarket.owed
    exchanges.kalshi.market_data exchanges.kalshi.signed_ws exchanges.kalshi.orderbook_ws exchanges.kalshi.reference_ws
    exchanges.kalshi.market_finder exchanges.kalshi.client exchanges.kalshi.user_ws
    exchanges.kalshi.catalogue exchanges.kalshi.market_watch exchanges.kalshi.rest_poll exchanges.kalshi.source
    exchanges.kalshi.subscriptions exchanges.kalshi.trades exchanges.kalshi.account exchanges.kalshi.budget
    exchanges.kalshi.changes exchanges.kalshi.journal exchanges.kalshi.order_entry exchanges.kalshi.paging
    exchanges.kalshi.history exchanges.kalshi.portfolio exchanges.kalshi.resolve exchanges.kalshi.signed_http
    exchanges.kalshi.user_stream exchanges.kalshi.public_reads
"""
_COMPOSITION = """
    exchanges.paper exchanges.paper.exchange exchanges.paper.matcher exchanges.paper.order exchanges.paper.queue
    exchanges.paper.liquidity exchanges.paper.account exchanges.paper.follow exchanges.paper.streams
    exchanges.paper.desk
    bot bot.base bot.decisions bot.ledger bot.life bot.local bot.own bot.record bot.rows bot.run bot.venues bot.signals
    bot.status bot.summary bot.windows
"""

LAYER_OF = {
    f"{ROOT}.{name}": layer
    for layer, names in ((GROUND, _GROUND), (WIRE, _WIRE), (CLIENTS, _CLIENTS), (COMPOSITION, _COMPOSITION))
    for name in names.split()
}

SIM = f"{ROOT}.sim"
"""Composition, whatever is inside: one rule holds for all of it, so its modules need no rows."""
SIM_MAY_IMPORT = {f"{ROOT}.{name}" for name in ("clock", "endpoints", "errors", "recording.lines", "version")}
SIM_IMPORTED_BY = {f"{ROOT}.bot.run": "lazily, when the user chose local"}
REPLAY = f"{ROOT}.replay"
"""Composition as well: sim serves recordings to the clients. Nothing in pmkit imports it."""

VENUES = tuple(f"{ROOT}.exchanges.{venue}" for venue in ("polymarket", "kalshi", "paper"))

WIRE_MAY_IMPORT = {f"{ROOT}.errors"}
_WIRE_USES = """
    __future__ abc array base64 binascii bisect collections contextlib copy dataclasses datetime decimal enum fractions
    functools hashlib heapq hmac itertools json math numbers operator re string struct types typing urllib.parse uuid
    zoneinfo
    msgspec coincurve Crypto cryptography numpy
"""
WIRE_MAY_USE = set(_WIRE_USES.split())
"""What wire modules may import besides pmkit: no I/O in any of it. The clock lint watches datetime and uuid."""
WIRE_MAY_NOT_CALL = {"open", "print", "input", "breakpoint", "exec", "eval"}

EXCEPTIONS = {
    ("pmkit.errors", "pmkit.exchanges.types"): "OrderUnknown names Intent, for type checkers only",
}
"""Upward imports that are allowed inside `if TYPE_CHECKING:`, each with its reason."""


class Import(NamedTuple):
    """One import: who, what, where, and whether only type checkers see it or it waits inside a function."""

    module: str
    target: str
    line: int
    typing_only: bool
    lazy: bool


def module_name(path: Path, tree: Path) -> str:
    """`pmkit/data/feed.py` -> `pmkit.data.feed`; `__init__.py` is the package itself. `tree` is the pmkit folder."""
    parts = path.relative_to(tree.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(tree: Path) -> dict[str, Path]:
    """Every module under the pmkit folder."""
    return {module_name(path, tree): path for path in sorted(tree.rglob("*.py"))}


def imports(source: str, module: str, is_package: bool, known: set[str]) -> list[Import]:
    """Every import of one file: at the top, in functions, for typing only, and by `import_module("...")`.

    `from a import b` means module `a.b` where there is one, else `a`.
    """
    return list(_walk(ast.parse(source), module, is_package, known, typing_only=False, lazy=False))


def _walk(
    node: ast.AST, module: str, is_package: bool, known: set[str], *, typing_only: bool, lazy: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside_typing = typing_only
        if isinstance(node, ast.If) and _is_type_checking(node.test) and child in node.body:
            inside_typing = True
        if isinstance(child, ast.Import | ast.ImportFrom | ast.Call):
            for target in dict.fromkeys(_targets(child, module, is_package, known)):
                yield Import(module, target, child.lineno, inside_typing, lazy)
        yield from _walk(
            child,
            module,
            is_package,
            known,
            typing_only=inside_typing,
            lazy=lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
        )


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _targets(
    node: ast.Import | ast.ImportFrom | ast.Call, module: str, is_package: bool, known: set[str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, module, is_package)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in known else base
    else:
        function = node.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        if name in ("import_module", "__import__") and node.args:
            first = node.args[0]
            # A computed name cannot be judged, so it is reported as itself and refused by the rules.
            yield str(first.value) if isinstance(first, ast.Constant) else f"<{ast.unparse(first)}>"


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if is_package else module.split(".")[:-1]
    base = package[: len(package) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> int | None:
    """The layer of a module; None where it has no row."""
    return COMPOSITION if inside(module, SIM) or inside(module, REPLAY) else LAYER_OF.get(module)


def problem(edge: Import) -> str | None:
    """Why an import is refused; None where it is fine."""
    importer, target = edge.module, edge.target
    if importer == ROOT:
        return None  # re-exports, by a table of its own
    if target.startswith("<"):
        return "an import whose name is computed cannot be checked"
    layer = layer_of(importer)
    if not inside(target, ROOT):
        if layer == WIRE and not any(inside(target, allowed) for allowed in WIRE_MAY_USE):
            return "wire modules are pure: this is not in WIRE_MAY_USE"
        return None
    if layer is None:
        return "the importing module has no row in LAYER_OF"
    if (importer, target) in EXCEPTIONS:
        return None if edge.typing_only else "allowed for type checkers only"
    if target == ROOT:
        return "import from the module that defines the name, not from pmkit"
    return _inner_problem(edge, layer)


def _inner_problem(edge: Import, layer: int) -> str | None:
    importer, target = edge.module, edge.target
    if inside(importer, SIM):
        if inside(target, SIM) or target in SIM_MAY_IMPORT:
            return None
        return f"sim shares no rule with the clients: it may import {', '.join(sorted(SIM_MAY_IMPORT))}"
    if inside(target, REPLAY) and not inside(importer, REPLAY):
        return "nothing imports replay but users"
    if inside(target, SIM):
        if inside(importer, REPLAY):
            return None
        if importer not in SIM_IMPORTED_BY:
            return "nothing imports sim but bot.run and replay"
        return None if edge.lazy else "sim is imported inside a function"
    target_layer = layer_of(target)
    if target_layer is None:
        return "the imported module has no row in LAYER_OF"
    if target_layer > layer:
        return f"{NAMES[layer]} may not import {NAMES[target_layer]}"
    if layer == WIRE and target_layer == GROUND and target not in WIRE_MAY_IMPORT:
        return "of the ground, wire modules may import pmkit.errors only"
    for venue in VENUES:
        if inside(target, venue) and not inside(importer, venue) and layer < COMPOSITION:
            return "a venue's folder is imported by itself and by the composition only"
    if inside(importer, f"{ROOT}.exchanges.paper") and any(inside(target, venue) for venue in VENUES[:2]):
        return "the dry-run knows no venue"
    return None


def impure_calls(source: str) -> list[tuple[int, str]]:
    """Calls of built-in I/O functions in a wire module: (line, name)."""
    return [
        (node.lineno, node.func.id)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WIRE_MAY_NOT_CALL
    ]
