"""API keys: the two kinds of signed requests and the routes that make keys (polymarket-trading.md, 2.1, 2.2).

L1 is a wallet's signature and only makes keys; L2 is an HMAC over `timestamp + METHOD + path + body`, the body byte for
byte as it came. A timestamp may be TOLERANCE_SECONDS of wall time away from market time (no figure is published).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.polymarket.signatures import address_bytes, checksummed, hmac_text, login_digest, recover
from pmkit.sim.server import Refused, Server, answer
from pmkit.sim.world import World

TOLERANCE_SECONDS = 10.0
BAD_KEY = "Unauthorized/Invalid api key"
BAD_LOGIN = "Invalid L1 Request headers"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Credentials of one owner (an EOA, checksummed). Worth nothing elsewhere, but kept out of logs all the same."""

    key: str
    secret: str
    passphrase: str
    owner: str
    nonce: int = 0
    read_only: bool = False

    def __repr__(self) -> str:
        return f"ApiKey(key={self.key!r}, owner={self.owner!r}, secret=***, passphrase=***)"

    def json(self) -> dict[str, str]:
        """As the venue answers it."""
        return {"apiKey": self.key, "secret": self.secret, "passphrase": self.passphrase}


class ApiKeys:
    """The keys this venue knows."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._by_key: dict[str, ApiKey] = {}
        self._by_login: dict[tuple[str, int], ApiKey] = {}
        self._made = 0

    def make(self, owner: str, nonce: int = 0) -> ApiKey:
        """A key for an owner, known from now on; a function of the seed, the owner, the nonce and how often."""
        known = self._by_login.get((owner, nonce))
        if known is not None:
            return known
        made = self._new(owner, nonce, read_only=False)
        self._by_login[owner, nonce] = made
        return made

    def make_read_only(self, owner: str) -> ApiKey:
        """A further key that may read only."""
        return self._new(owner, 0, read_only=True)

    def _new(self, owner: str, nonce: int, *, read_only: bool) -> ApiKey:
        self._made += 1
        raw = self._world.bits("api key", owner, nonce, self._made, size=64).to_bytes(64)
        text = raw[:16].hex()
        made = ApiKey(
            key=f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}",
            secret=base64.urlsafe_b64encode(raw[16:48]).decode(),
            passphrase=raw[32:64].hex(),
            owner=owner,
            nonce=nonce,
            read_only=read_only,
        )
        self._by_key[made.key] = made
        return made

    def register(self, key: ApiKey) -> None:
        """Let credentials in that were made elsewhere."""
        self._by_key[key.key] = key
        self._by_login[key.owner, key.nonce] = key

    def derive(self, owner: str, nonce: int) -> ApiKey | None:
        """The key an owner has for a nonce."""
        return self._by_login.get((owner, nonce))

    def forget(self, key: ApiKey) -> None:
        """Delete a key: its requests answer 401 from now on."""
        self._by_key.pop(key.key, None)
        if self._by_login.get((key.owner, key.nonce)) is key:
            del self._by_login[key.owner, key.nonce]

    def of(self, owner: str, *, read_only: bool = False) -> list[ApiKey]:
        """An owner's keys of one kind, oldest first."""
        return [key for key in self._by_key.values() if key.owner == owner and key.read_only == read_only]

    def known(self, key: str, secret: str, passphrase: str) -> ApiKey | None:
        """The key that these credentials open (what sockets get)."""
        found = self._by_key.get(key)
        if found is None or not hmac.compare_digest(found.secret.encode(), secret.encode()):
            return None
        return found if hmac.compare_digest(found.passphrase.encode(), passphrase.encode()) else None

    def _in_time(self, text: str) -> bool:
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            return False
        return abs(int(text) - self._clock.now_ms() / 1000) <= TOLERANCE_SECONDS * self._clock.factor

    def login(self, headers: Mapping[str, str]) -> tuple[str, int]:
        """The owner and nonce of an L1 request. Raises Refused (401)."""
        address, timestamp = headers.get("POLY_ADDRESS", ""), headers.get("POLY_TIMESTAMP", "")
        nonce, signature = headers.get("POLY_NONCE", "0"), headers.get("POLY_SIGNATURE", "")
        try:
            owner = checksummed(address_bytes(address))
            by = recover(login_digest(address, timestamp, int(nonce)), bytes.fromhex(signature.removeprefix("0x")))
        except (ValueError, OverflowError) as error:
            raise Refused(401, BAD_LOGIN) from error
        if by != owner or not self._in_time(timestamp):
            raise Refused(401, BAD_LOGIN)
        return owner, int(nonce)

    def check(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> ApiKey:
        """The key of a properly signed L2 request; `path` without query. Raises Refused (401)."""
        timestamp = headers.get("POLY_TIMESTAMP", "")
        found = self._by_key.get(headers.get("POLY_API_KEY", ""))
        if found is None or not self._in_time(timestamp):
            raise Refused(401, BAD_KEY)
        expected = hmac_text(found.secret, timestamp, method, path, body) or ""
        same = hmac.compare_digest(expected.encode(), headers.get("POLY_SIGNATURE", "").encode())
        named = headers.get("POLY_ADDRESS", "").lower() == found.owner.lower()
        if not same or not named or headers.get("POLY_PASSPHRASE", "") != found.passphrase:
            raise Refused(401, BAD_KEY)
        return found

    async def of_request(self, request: web.Request, *, writing: bool = False) -> ApiKey:
        """`check` of a request as it came; a key that may only read is refused where something is written."""
        key = self.check(request.method, request.path, request.headers, await request.read())
        if writing and key.read_only:
            raise Refused(401, BAD_KEY)
        return key


class AuthRoutes:
    """Registers the routes of `/auth`."""

    def __init__(self, server: Server, keys: ApiKeys, closed_only: set[str]) -> None:
        self._keys = keys
        self._closed_only = closed_only
        server.post("/auth/api-key", self._create)
        server.get("/auth/derive-api-key", self._derive)
        server.get("/auth/api-keys", self._list)
        server.delete("/auth/api-key", self._delete)
        server.post("/auth/readonly-api-key", self._create_read_only)
        server.get("/auth/readonly-api-keys", self._list_read_only)
        server.delete("/auth/readonly-api-key", self._delete_read_only)
        server.get("/auth/ban-status/closed-only", self._ban)

    async def _create(self, request: web.Request) -> web.Response:
        owner, nonce = self._keys.login(request.headers)
        if self._keys.derive(owner, nonce) is not None:
            raise Refused(400, "Could not create api key")
        return answer(self._keys.make(owner, nonce).json())

    async def _derive(self, request: web.Request) -> web.Response:
        owner, nonce = self._keys.login(request.headers)
        found = self._keys.derive(owner, nonce)
        if found is None:
            raise Refused(400, "Could not derive api key!")
        return answer(found.json())

    async def _list(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        return answer({"apiKeys": [row.key for row in self._keys.of(key.owner)]})

    async def _delete(self, request: web.Request) -> web.Response:
        self._keys.forget(await self._keys.of_request(request))
        return answer("OK")

    async def _create_read_only(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request, writing=True)
        return answer(self._keys.make_read_only(key.owner).json())

    async def _list_read_only(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        return answer({"readonlyApiKeys": [row.key for row in self._keys.of(key.owner, read_only=True)]})

    async def _delete_read_only(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request, writing=True)
        try:
            wanted = msgspec.json.decode(await request.read(), type=dict[str, str]).get("key", "")
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid payload") from error
        for row in self._keys.of(key.owner, read_only=True):
            if row.key == wanted:
                self._keys.forget(row)
        return answer(True)

    async def _ban(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        return answer({"closed_only": key.owner in self._closed_only})
