"""Whether recorded traffic is as the exchange's own files say: requests, answers, and both directions of the socket.

Fields, parameters, operations, message types and refusals that a file does not name are problems, except for the
differences in `spec_changes`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.conftest import recordings_directory
from tests.kalshi.spec_changes import REST, SOCKET, changed
from tests.kalshi.tap import Exchange, Frame, Record
from tests.sim.openapi import Spec

ROOT = "/trade-api/v2"
SOCKET_PATH = "/trade-api/ws/v2"
OPENAPI, ASYNCAPI = "openapi-3.28.0-2026-08-22.yaml", "asyncapi-2.0.0-2026-08-22.yaml"
_SIGNED = {
    "kalshi-access-key": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "kalshi-access-timestamp": re.compile(r"\d{13}"),
    "kalshi-access-signature": re.compile(r"[A-Za-z0-9+/]{86,}={0,2}"),
}
_COMMANDS = {
    "subscribe": "subscribeCommandPayload",
    "unsubscribe": "unsubscribeCommandPayload",
    "list_subscriptions": "listSubscriptionsCommandPayload",
    "update_subscription": "updateSubscriptionCommandPayload",
}
_INDEX_ACTIONS = ("subscribe_indices", "unsubscribe_indices", "indexlist")
# What the local venue says of an operation that it has not got. pmkit never meets it.
NOT_BUILT = 501
# What a venue may answer to a path or method that its file does not have.
_NO_SUCH_PATH = (401, 404, 405, 410, NOT_BUILT)


@cache
def _text(path: Path) -> str:
    return json.dumps(Spec(path).document, default=str)


@cache
def openapi(directory: Path, without: str = "") -> Spec:
    """The file of today. `without`: with that difference left out."""
    return Spec.of(changed(json.loads(_text(directory / OPENAPI)), REST, without=without))


@cache
def asyncapi(directory: Path, without: str = "") -> Spec:
    return Spec.of(changed(json.loads(_text(directory / ASYNCAPI)), SOCKET, without=without))


class Coverage:
    """What was seen: operations with their statuses, commands, channels and message types, each with how often."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.socket: Counter[str] = Counter()

    def report(self, spec: Spec) -> str:
        asked: dict[str, list[str]] = {}
        for line, count in sorted(self.operations.items()):
            operation, _, status = line.rpartition(" ")
            asked.setdefault(operation, []).append(f"{status} x{count}")
        whole = sum(len(item) for item in spec.document["paths"].values())
        lines = [f"REST: {len(asked)} of the file's {whole} operations"]
        lines += [f"  {operation}: {', '.join(statuses)}" for operation, statuses in asked.items()]
        lines += [f"socket: {len(self.socket)} commands, channels and messages"]
        lines += [f"  {name}: {count}" for name, count in sorted(self.socket.items())]
        return "\n".join(lines)


class Check:
    """Both files. `requests` False: the client sends nonsense on purpose, only what the venue says is looked at."""

    def __init__(self, directory: Path, *, requests: bool = True, without: str = "") -> None:
        self.rest, self.socket = openapi(directory, without), asyncapi(directory, without)
        self.coverage = Coverage()
        self._requests = requests
        schemas = self.socket.document["components"]["schemas"]
        self._told = {
            schema["properties"]["type"]["const"]: schema
            for schema in schemas.values()
            if "const" in schema.get("properties", {}).get("type", {})
        } | {"ok": schemas["okResponsePayload"]}  # the answer to list_subscriptions is of that type as well

    def problems(self, record: Record) -> list[str]:
        """All kinds of problems, each with where and how often it was seen, and with one frame that has it."""
        found = [f"not HTTP or WebSocket as known: {text}" for text in record.unread]
        for exchange in record.exchanges:
            where = f"{exchange.method} {exchange.path} {exchange.status}"
            if exchange.path == SOCKET_PATH:
                found += [f"{where}: {text}" for text in self._handshake(exchange)]
                continue
            if self._requests:
                found += [f"{where}: {text}" for text in self.request(exchange)]
            if (exchange.status, exchange.answer) not in record.scripted:
                found += [f"{where}: {text}" for text in self.answer(exchange)]
        for frame in record.frames:
            if frame.data not in record.garbage and (self._requests or not frame.sent):
                example = frame.data[:300].decode(errors="replace")
                found += [f"socket: {text}\n    {example}" for text in self.frame(frame)]
        return _kinds(found)

    # ---- REST

    def request(self, exchange: Exchange) -> Iterator[str]:
        """What is wrong with a request."""
        known = self.rest.operation(exchange.method, exchange.path.removeprefix(ROOT))
        if not exchange.path.startswith(ROOT) or known is None:
            yield "no such operation"
            return
        operation = known[1]
        yield from self._query(exchange, operation)
        yield from self._signature(exchange, needed=bool(operation.get("security")))
        content = operation.get("requestBody")
        if content is None:
            if exchange.body:
                yield "a body where there is none"
            return
        content = self.rest.resolved(content)
        if not exchange.body:
            if content.get("required"):
                yield "no body"
            return
        if exchange.headers.get("content-type", "").partition(";")[0] != "application/json":
            yield f"content-type {exchange.headers.get('content-type')!r}"
        try:
            body = json.loads(exchange.body)
        except ValueError as error:
            yield f"the body is not JSON: {error}"
            return
        yield from self.rest.problems(body, content["content"]["application/json"]["schema"], "body", strict=True)

    def _query(self, exchange: Exchange, operation: dict[str, Any]) -> Iterator[str]:
        parameters = self.rest.parameters(operation)
        given: dict[str, list[str]] = {}
        for name, text in parse_qsl(exchange.query, keep_blank_values=True):
            given.setdefault(name, []).append(text)
        for name, texts in given.items():
            if name not in parameters:
                yield f"unknown parameter {name}"
                continue
            schema = self.rest.resolved(parameters[name]["schema"])
            if schema.get("type") == "array":
                yield from self.rest.problems(texts, schema, f"?{name}")
            elif len(texts) > 1:
                yield f"parameter {name} more than once"
            else:
                yield from self.rest.problems(_typed(texts[0], schema.get("type")), schema, f"?{name}")
        for name, parameter in parameters.items():
            if parameter.get("required") and name not in given:
                yield f"parameter {name} is missing"

    def _signature(self, exchange: Exchange, *, needed: bool) -> Iterator[str]:
        given = [name for name in _SIGNED if name in exchange.headers]
        if not given and not needed:
            return
        for name, form in _SIGNED.items():
            if form.fullmatch(exchange.headers.get(name, "")) is None:
                yield f"header {name} is missing or odd"

    def answer(self, exchange: Exchange) -> Iterator[str]:
        """What is wrong with an answer."""
        if not exchange.status:
            return
        if not exchange.complete:
            yield "the answer was cut off"
            return
        known = self.rest.operation(exchange.method, exchange.path.removeprefix(ROOT).rstrip("/"))
        if not self._requests and exchange.status == NOT_BUILT:
            known = None
        if known is None:
            self.coverage.operations[f"(no such operation) {exchange.status}"] += 1
            if exchange.status not in _NO_SUCH_PATH:
                yield "a status for an operation that is not in the file"
            yield from self._body(exchange, self.rest.document["components"]["responses"]["NotFoundError"])
            return
        template, operation = known
        self.coverage.operations[f"{exchange.method} {template} {exchange.status}"] += 1
        response = operation["responses"].get(str(exchange.status))
        if response is None:
            yield "a status that the file does not name"
            return
        yield from self._body(exchange, self.rest.resolved(response))

    def _body(self, exchange: Exchange, response: dict[str, Any]) -> Iterator[str]:
        content = response.get("content")
        if content is None:
            if exchange.answer:
                yield "a body where there is none"
            return
        if exchange.answer_headers.get("content-type", "").partition(";")[0] != "application/json":
            yield f"content-type {exchange.answer_headers.get('content-type')!r}"
        try:
            body = json.loads(exchange.answer)
        except ValueError as error:
            yield f"the answer is not JSON: {error}"
            return
        yield from self.rest.problems(body, content["application/json"]["schema"], "answer", strict=True)

    # ---- socket

    def _handshake(self, exchange: Exchange) -> Iterator[str]:
        self.coverage.operations[f"GET {SOCKET_PATH} {exchange.status}"] += 1
        if self._requests:
            if exchange.method != "GET" or exchange.query:
                yield "a handshake is a GET without a query"
            yield from self._signature(exchange, needed=True)

    def frame(self, frame: Frame) -> Iterator[str]:
        """What is wrong with a message of either direction."""
        if frame.kind == "ping":
            if not frame.sent and frame.data != b"heartbeat":
                yield "a ping is a heartbeat"
            return
        if frame.kind in ("pong", "close"):
            return
        if frame.kind != "text":
            yield f"a {frame.kind} message"
            return
        try:
            message = json.loads(frame.data)
        except ValueError as error:
            yield f"not JSON: {error}"
            return
        if not isinstance(message, dict):
            yield "not an object"
        elif frame.sent:
            yield from self._command(message)
        else:
            yield from self._message(message)

    def _command(self, message: dict[str, Any]) -> Iterator[str]:
        name = _COMMANDS.get(str(message.get("cmd")))
        if name is None:
            yield "no such command"
            return
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        action = params.get("action")
        if action in _INDEX_ACTIONS:
            name = "cfbenchmarksUpdateSubscriptionCommandPayload"
        for channel in params.get("channels", ()):
            self.coverage.socket[f"channel {channel}"] += 1
        self.coverage.socket[f"command {message['cmd']}{f' {action}' if action else ''}"] += 1
        yield from self.socket.problems(message, self.socket.schema(name), "command", strict=True)
        for one, other in (("sid", "sids"), ("market_ticker", "market_tickers")):
            if one in params and other in params:
                yield f"both {one} and {other}"
        if message["cmd"] == "update_subscription" and not {"sid", "sids"} & params.keys():
            yield "neither sid nor sids"

    def _message(self, message: dict[str, Any]) -> Iterator[str]:
        kind = message.get("type")
        schema = self._told.get(str(kind))
        if kind == "ok" and isinstance(message.get("msg"), list):
            schema, kind = self.socket.schema("listSubscriptionsResponsePayload"), "ok (list)"
        if schema is None:
            yield f"no such message: {kind}"
            return
        code = message["msg"]["code"] if kind == "error" else None
        self.coverage.socket[f"message {kind}{'' if code is None else f' {code}'}"] += 1
        yield from self.socket.problems(message, schema, "message", strict=True)


def directory() -> Path | None:
    """Where the files are; None where they, or what reads them, are missing."""
    found = recordings_directory() / "kalshi" / "spec"
    return found if find_spec("yaml") is not None and found.is_dir() else None


def hold(record: Record, *, requests: bool = True) -> None:
    """Fail the test where what was recorded is not as the files say. Does nothing without them."""
    if (found := directory()) is None:
        return
    problems = Check(found, requests=requests).problems(record)
    if problems:
        pytest.fail(f"{len(problems)} differences from the exchange's files:\n" + "\n".join(problems), pytrace=False)


def _kinds(found: list[str]) -> list[str]:
    """One line for what differs by the place in a list, or by the number of an order, only."""
    kinds: dict[str, list[str]] = {}
    for text in found:
        kind = re.sub(r"\[\d+\]", "[]", text.partition("\n")[0])
        kind = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|KX[A-Z0-9-]+", "ID", kind)
        kinds.setdefault(kind, []).append(text)
    return [f"{kind} (x{len(texts)}){texts[0][len(texts[0].partition(chr(10))[0]) :]}" for kind, texts in kinds.items()]


def _typed(text: str, kind: str | None) -> Any:
    """The text of a parameter as what it stands for; itself where it is not that."""
    if kind == "integer" and re.fullmatch(r"-?\d+", text, re.ASCII):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text
