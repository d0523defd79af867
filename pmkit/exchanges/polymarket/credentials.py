"""Who trades: the key, the wallet that holds the funds, and the API credentials (derived, else created).

Everything that an order needs of the account is made once, at the log-in; afterwards nothing is asked on the way of an
order. The API key belongs to the key's own address whatever the wallet.
"""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from pmkit.clock import Clock
from pmkit.config.secret import Secret
from pmkit.errors import AuthError, ConfigError, PmkitError, ProtocolChanged
from pmkit.exchanges.polymarket.answers import BalanceAllowance, read_balance
from pmkit.exchanges.polymarket.auth import Credentials, Signer, read_credentials
from pmkit.exchanges.polymarket.deposit_wallet import DepositWallets
from pmkit.exchanges.polymarket.eip712 import address_bytes, checksum_address
from pmkit.exchanges.polymarket.orders import OrderSigner
from pmkit.exchanges.polymarket.signed_http import SignedSession
from pmkit.exchanges.polymarket.wallets import SignatureType, wallets_of
from pmkit.http import HttpAnswer
from pmkit.logging.redact import protect

_LOG = logging.getLogger("pmkit.polymarket")

DERIVE: Final = "/auth/derive-api-key"
CREATE: Final = "/auth/api-key"
GivenCredentials: TypeAlias = Credentials | tuple[Secret | str, Secret | str, Secret | str] | None
REPEAT_SECONDS: Final = 60.0
"""Wall seconds between two attempts to fetch the credentials anew after the venue refused them."""


class Identity(msgspec.Struct, frozen=True):
    """A logged-in account. `maker` holds the funds; `orders` signs for it."""

    credentials: Credentials
    orders: OrderSigner
    maker: str
    signature_type: SignatureType

    def __repr__(self) -> str:
        return f"<Identity {self.maker} type {int(self.signature_type)}>"


class Login:
    """Logs in once, for however many callers. `identity` is None before.

    `funder` and `signature_type` are checked against the key at once. Raises ConfigError that names the type that fits.
    `relayer`: its address; it is asked for the deposit wallet where that was not given.
    """

    def __init__(
        self,
        http: SignedSession,
        clock: Clock,
        signer: Signer,
        *,
        funder: str | None,
        signature_type: int | None,
        credentials: Credentials | None,
        relayer: str,
    ) -> None:
        self.identity: Identity | None = None
        self._http = http
        http.renew = self.renew
        self._clock = clock
        self._signer = signer
        self._given = credentials
        self._lock = asyncio.Lock()
        self._renewed_at: float | None = None
        self._deposits = DepositWallets(relayer, clock)
        wallets = wallets_of(signer.address)
        self._kind: SignatureType | None = None
        self._session_key = False
        if funder is not None and signature_type is not None:
            self._kind = wallets.check(funder, signature_type)
        elif funder is not None:
            found = wallets.type_of(funder)  # type 0 is falsy
            self._kind = SignatureType.POLY_1271 if found is None else found
        elif signature_type is not None:
            self._kind = _known_type(signature_type)
            funder = self._wallet_of(self._kind)
        self._funder = funder
        self._session_key = funder is not None and wallets.type_of(funder) is None
        if credentials is not None:
            if credentials.address != signer.address:
                raise ConfigError(
                    f"the Polymarket API credentials are of {credentials.address}, the private key is of "
                    f"{signer.address}: use those of this key, or leave them out to have them derived"
                )
            protect(*credentials.reveal())

    def _wallet_of(self, kind: SignatureType) -> str | None:
        """None for a deposit wallet, whose address does not follow from the key alone."""
        wallets = wallets_of(self._signer.address)
        return {0: wallets.owner, 1: wallets.proxy, 2: wallets.safe}.get(int(kind))

    async def close(self) -> None:
        """Close its connections. May be called twice."""
        await self._deposits.close()

    async def ready(self) -> Identity:
        """The account, logged in. Asks nobody once it is. Raises AuthError, ConfigError and what the queries raise."""
        if self.identity is None:
            async with self._lock:
                if self.identity is None:
                    self.identity = await self._log_in()
                    await self._name_misfit()
        return self.identity

    async def _name_misfit(self) -> None:
        """Say at once where the wallet that was given is empty and another one of this key is not."""
        if self._kind is None:
            return
        try:
            hint = await self.other_wallet()
        except PmkitError as error:  # the log-in itself went well
            _LOG.info("polymarket: whether the wallet has money could not be asked: %s", error)
            return
        if hint:
            _LOG.error("polymarket: %s", hint)

    async def wallet(self) -> tuple[str, SignatureType]:
        """The wallet that holds the funds and its type; logs in only where that has to be found out."""
        if self._kind is not None and self._funder is not None:
            return checksum_address(address_bytes(self._funder)), self._kind
        identity = await self.ready()
        return identity.maker, identity.signature_type

    async def _log_in(self) -> Identity:
        await self._http.measure_clock()
        credentials = self._given or await self._fetch()
        self._http.credentials = credentials
        kind, funder = self._kind, self._funder
        if kind is None:
            kind = await self._find_type()
            funder = self._wallet_of(kind)
        if funder is None:
            funder = await self._deposits.find(wallets_of(self._signer.address))
        orders = OrderSigner(
            self._signer,
            credentials.api_key,
            funder=funder,
            signature_type=int(kind),
            session_key=self._session_key,
        )
        if kind is SignatureType.POLY_1271:
            # The venue sees a balance of 0 until it was asked to look once (py-clob-client-v2 issue 74).
            await self.refresh_balance(kind)
        _LOG.info("polymarket: logged in as %s, wallet type %d (%s)", orders.maker, int(kind), kind.name)
        return Identity(credentials, orders, orders.maker, kind)

    async def renew(self) -> bool:
        """After a 401 whose stamp was right: ask for the credentials again, which can bring a key back to life.

        True where that was done. Not more often than once a minute, and never for credentials that were given.
        """
        now = self._clock.io_monotonic()
        if self._given is not None or self.identity is None:
            return False
        if self._renewed_at is not None and now - self._renewed_at < REPEAT_SECONDS:
            return False
        self._renewed_at = now
        async with self._lock:
            credentials = await self._fetch(create_first=True)
            old = self.identity
            orders = OrderSigner(
                self._signer,
                credentials.api_key,
                funder=old.maker,
                signature_type=int(old.signature_type),
                session_key=self._session_key,
            )
            self._http.credentials = credentials
            self.identity = Identity(credentials, orders, old.maker, old.signature_type)
        return True

    async def _fetch(self, create_first: bool = False) -> Credentials:
        """The API credentials: those there are, else new ones."""
        order = [("GET", DERIVE), ("POST", CREATE)]
        last: HttpAnswer | None = None
        for method, path in reversed(order) if create_first else order:
            answer = await self._login_request(method, path)
            if answer.status in (200, 201):
                credentials = read_credentials(answer.body, self._signer.address)
                protect(*credentials.reveal())
                return credentials
            if answer.status not in (400, 404):
                _refuse(answer)
            last = answer
        assert last is not None
        raise AuthError(
            f"{last.host} neither derives nor creates API credentials for {self._signer.address} "
            f"({last.status}: {last.excerpt}): log in on polymarket.com once with this account"
        )

    async def _login_request(self, method: str, path: str) -> HttpAnswer:
        headers = self._signer.login_headers(self._http.now_ms() // 1000)
        answer = await self._http.queries.request(method, path, headers=headers)
        if answer.status == 401:
            # The clock was measured just before; a busy moment may have passed since.
            await self._http.measure_clock()
            headers = self._signer.login_headers(self._http.now_ms() // 1000)
            answer = await self._http.queries.request(method, path, headers=headers)
        return answer

    # -- the wallet -----------------------------------------------------------------------------------------------

    async def balance(
        self, kind: SignatureType, asset_type: str = "COLLATERAL", token_id: str = ""
    ) -> BalanceAllowance:
        """What a wallet of this key has, as the venue sees it."""
        answer = await self._http.get("/balance-allowance", _query(kind, asset_type, token_id))
        return read_balance(answer.body)

    async def refresh_balance(self, kind: SignatureType, asset_type: str = "COLLATERAL", token_id: str = "") -> None:
        """Have the venue look at the chain again. It does so by itself as well, but late."""
        await self._http.get("/balance-allowance/update", _query(kind, asset_type, token_id))

    async def funded(self) -> dict[SignatureType, Decimal]:
        """Dollars by wallet type, of those that have any."""
        found: dict[SignatureType, Decimal] = {}
        for kind in SignatureType:
            balance = (await self.balance(kind)).balance
            if balance > 0:
                found[kind] = balance
        return found

    async def _find_type(self) -> SignatureType:
        """The wallet type of the account: the only one with money; the key's own address where none has."""
        found = await self.funded()
        if len(found) > 1:
            raise ConfigError(
                f"several wallets of {self._signer.address} hold pUSD (types "
                f"{', '.join(f'{int(kind)} {kind.name}' for kind in found)}): set POLYMARKET_SIGNATURE_TYPE"
            )
        kind = next(iter(found), SignatureType.EOA)
        _LOG.info("polymarket: wallet type %d (%s) found out by its balance", int(kind), kind.name)
        return kind

    async def other_wallet(self) -> str:
        """For an account without money: which other wallet of this key has some; "" where none has."""
        identity = self.identity
        if identity is None or (await self.balance(identity.signature_type)).balance > 0:
            return ""
        found = await self.funded()
        others = [kind for kind in found if kind is not identity.signature_type]
        if identity.signature_type in found or not others:
            return ""
        return (
            f"the wallet of type {int(identity.signature_type)} ({identity.signature_type.name}) is empty, but that of "
            f"type {' or '.join(f'{int(kind)} ({kind.name})' for kind in others)} is not: set "
            "POLYMARKET_SIGNATURE_TYPE and POLYMARKET_FUNDER_ADDRESS"
        )


def _query(kind: SignatureType, asset_type: str, token_id: str) -> dict[str, str | int]:
    params: dict[str, str | int] = {"asset_type": asset_type, "signature_type": int(kind)}
    if token_id:
        params["token_id"] = token_id
    return params


def _known_type(signature_type: int) -> SignatureType:
    try:
        return SignatureType(signature_type)
    except ValueError:
        raise ConfigError(f"signature type {signature_type!r} is unknown: 0, 1, 2 or 3") from None


def _refuse(answer: HttpAnswer) -> None:
    if answer.status == 401:
        raise AuthError(
            f"{answer.host} refuses the log-in ({answer.excerpt}): check POLYMARKET_PRIVATE_KEY and this machine's "
            "clock"
        )
    answer.raise_for_status()
    raise ProtocolChanged(f"{answer.host} answered a log-in with {answer.status}: {answer.excerpt}")


def given_credentials(signer: Signer, given: GivenCredentials) -> Credentials | None:
    """API key, secret and passphrase as a user has them. Raises ConfigError for what cannot be them."""
    if given is None or isinstance(given, Credentials):
        return given
    parts: tuple[object, ...] = tuple(given)
    if len(parts) != 3:
        raise ConfigError("credentials are three parts: API key, secret and passphrase")
    protect(*given)
    api_key, secret, passphrase = (part.reveal() if isinstance(part, Secret) else part for part in given)
    return Credentials(signer.address, api_key, secret, passphrase)
