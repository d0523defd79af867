"""Files of recordings to rows: what form a file has is told by its columns, not by its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple


class Form(Enum):
    FILLS = "fills of an account"
    ORDERS = "orders of an account"
    SETTLED = "settled windows"
    CHARGES = "fees charged"
    MARKETS = "settled markets as REST gives them"
    API_LOG = "log of order calls"
    SOCKET = "messages of a socket with books"
    BOOKS = "books as REST gives them"


class Recording(NamedTuple):
    path: Path
    form: Form
    rows: list[dict[str, Any]]


class UnknownForm(ValueError):
    """A file that is of none of the forms."""


_COLUMNS = {
    Form.FILLS: {"trade_id", "fee_cost", "is_taker", "count_fp", "book_side"},
    Form.ORDERS: {"order_id", "initial_count_fp", "fill_count_fp", "status", "book_side"},
    Form.SETTLED: {"ticker", "a0", "a1", "result", "close"},
    Form.CHARGES: {"ticker", "count", "price", "fee_charged"},
    Form.MARKETS: {"ticker", "result", "open_time", "close_time"},
    Form.API_LOG: {"ev", "utc"},
    Form.SOCKET: {"type", "msg"},
    Form.BOOKS: {"url", "method", "response_body"},
}


def read(path: Path) -> Recording:
    """A CSV, JSON or JSON-lines file, gzipped or not. Raises UnknownForm, OSError."""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise UnknownForm(f"{path.name} cannot be read: {error}") from error
    rows = _json_rows(text) if text.lstrip()[:1] in ("{", "[") else _csv_rows(path, text)
    if rows:
        for form, columns in _COLUMNS.items():
            if columns <= rows[0].keys():
                return Recording(path, form, rows)
    raise UnknownForm(f"{path.name} is none of: {', '.join(form.value for form in Form)}")


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
    if rows and None in rows[-1].values():
        raise UnknownForm(f"{path.name}: its last row has fewer columns than its first line: the file is cut")
    return rows


def _json_rows(text: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise UnknownForm(f"neither JSON nor JSON lines: {error}") from error
    body = document.get("body", document) if isinstance(document, dict) else document
    if isinstance(body, dict):
        body = next((body[name] for name in ("fills", "orders", "markets") if name in body), [body.get("market", body)])
    return [row for row in body if isinstance(row, dict)]
