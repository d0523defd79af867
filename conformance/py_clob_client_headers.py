"""py-clob-client, the archived one: its orders are refused since 2026-04-28, its log-in and headers still hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from child import Calls, Settings, serve
from py_clob_client.clob_types import ApiCreds, RequestArgs
from py_clob_client.headers.headers import create_level_1_headers, create_level_2_headers
from py_clob_client.signer import Signer


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    signer = Signer(settings["private_key"], 137)

    async def headers(creds: dict[str, str], method: str, path: str, body: str | None, nonce: int) -> object:
        return {
            "l1": create_level_1_headers(signer, nonce),
            "l2": create_level_2_headers(signer, ApiCreds(**creds), RequestArgs(method, path, serialized_body=body)),
        }

    yield {"headers": headers}


serve("py-clob-client", connect)
