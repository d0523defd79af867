"""Variables of the environment and of `.env` into typed, frozen `Settings`.

    settings = Settings.load()                        # ./.env (if there is one), the real environment wins
    for line in settings.warnings: log.warning(line)
    settings.require("live", ["kalshi"], "real")      # ConfigError with everything that is missing

Nothing is written into the environment, nothing is read at import. Strategy settings are constants of the script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pmkit.config import dotenv, values
from pmkit.config.keys import problem_of, read_pem
from pmkit.config.secret import Secret
from pmkit.config.values import Period
from pmkit.endpoints import Where
from pmkit.errors import ConfigError

__all__ = ["ASSETS", "VARIABLES", "Mode", "Period", "Secret", "Settings", "Variable", "Venue", "Where", "secrets_of"]

T = TypeVar("T")

ASSETS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "BNB", "HYPE", "ZEC")
"""Assets with 15-minute Up/Down markets on both venues (polymarket-markets-and-redeem.md, kalshi.md 4.1)."""

_MIN_URL_SECRET_CHARS = 12


class Mode(StrEnum):
    """Whether orders are real. Nothing is ever live by default."""

    DRY_RUN = "dry-run"
    LIVE = "live"


class Venue(StrEnum):
    """Venues that a bot can trade on."""

    POLYMARKET = "polymarket"
    KALSHI = "kalshi"


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: whether its value is secret, what it is, and where a value comes from."""

    name: str
    secret: bool
    help: str
    where_to_get: str


_POLYMARKET_KEYS = "made by the venue for a wallet; leave all three out and they are derived from the private key"
_BUILDER_KEYS = "polymarket.com > Settings > Builder, all three parts; about 100 redeems a day"
_KALSHI_KEYS = "kalshi.com (demo.kalshi.co for demo) > Account & security > API keys > Create key"
_FREE = "your choice"

VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        variable.name: variable
        for variable in (
            Variable(
                "POLYMARKET_PRIVATE_KEY",
                True,
                "private key of the account that signs Polymarket orders: 64 hex digits, with or without 0x",
                "your wallet's 'export private key'; for an e-mail account polymarket.com > Settings > Private key",
            ),
            Variable(
                "POLYMARKET_FUNDER_ADDRESS",
                False,
                "address of the Polymarket wallet that holds the funds, where it is not the signing account itself",
                "polymarket.com > your profile (the address under your name, or Deposit)",
            ),
            Variable(
                "POLYMARKET_SIGNATURE_TYPE",
                False,
                "kind of that wallet: 0 EOA, 1 proxy (e-mail), 2 Safe (browser), 3 deposit; found out when absent",
                "how you signed up; accounts made since May 2026 have 3",
            ),
            Variable("POLYMARKET_API_KEY", True, "Polymarket API key (UUID); derived when absent", _POLYMARKET_KEYS),
            Variable("POLYMARKET_API_SECRET", True, "secret of that API key (base64)", _POLYMARKET_KEYS),
            Variable("POLYMARKET_API_PASSPHRASE", True, "passphrase of that API key", _POLYMARKET_KEYS),
            Variable(
                "POLYMARKET_RELAYER_API_KEY",
                True,
                "relayer API key, with which deposit wallets redeem (others on request)",
                "polymarket.com > Settings > API keys, made with the account of POLYMARKET_PRIVATE_KEY",
            ),
            Variable("POLYMARKET_BUILDER_API_KEY", True, "builder key, in place of a relayer key", _BUILDER_KEYS),
            Variable("POLYMARKET_BUILDER_SECRET", True, "secret of that builder key (base64)", _BUILDER_KEYS),
            Variable("POLYMARKET_BUILDER_PASSPHRASE", True, "passphrase of that builder key", _BUILDER_KEYS),
            Variable("KALSHI_API_KEY_ID", True, "id of the Kalshi API key (UUID)", _KALSHI_KEYS),
            Variable(
                "KALSHI_PRIVATE_KEY_PATH",
                False,
                "path of the key file (PEM, RSA or Ed25519) that belongs to KALSHI_API_KEY_ID",
                _KALSHI_KEYS + "; the file is downloaded once, when the key is made",
            ),
            Variable(
                "KALSHI_PRIVATE_KEY",
                True,
                "the key itself as PEM text, line ends may be written \\n; in place of KALSHI_PRIVATE_KEY_PATH",
                _KALSHI_KEYS,
            ),
            Variable(
                "POLYGON_RPC_URL",
                True,
                "address of a Polygon node, for redeeming and wallet look-ups; a public one when absent",
                "any provider of Polygon nodes, or your own node",
            ),
            Variable("PMKIT_WHERE", False, "answers 'where': local, real or demo (Kalshi)", _FREE),
            Variable("PMKIT_MODE", False, "answers 'mode': dry-run or live", _FREE),
            Variable("PMKIT_VENUES", False, "answers 'venues': polymarket, kalshi or both, separated by commas", _FREE),
            Variable("PMKIT_ASSETS", False, "answers 'assets': BTC,ETH,...", _FREE),
            Variable("PMKIT_INTERVAL", False, "answers 'interval': 1s 1m ... 15m ... 1d", _FREE),
            Variable("PMKIT_PERIOD", False, "answers 'period': 36h, 7d, 4w, 2026-11-01..2026-11-08 or full", _FREE),
            Variable("PMKIT_LOG_LEVEL", False, "DEBUG, INFO (default), WARNING or ERROR", _FREE),
            Variable("PMKIT_LOG_DIR", False, "directory of log files, default ./logs", _FREE),
            Variable("PMKIT_TRADE_DIR", False, "directory of trade CSV files, default ./trades", _FREE),
            Variable("PMKIT_DATA_DIR", False, "directory of candle files, default ./data", _FREE),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, typed. None or () means not said: only level and directories have a default."""

    where: Where | None = None
    mode: Mode | None = None
    venues: tuple[Venue, ...] = ()
    assets: tuple[str, ...] = ()
    interval: str | None = None
    period: Period | None = None
    log_level: str = "INFO"
    log_dir: Path = Path("logs")
    trade_dir: Path = Path("trades")
    data_dir: Path = Path("data")
    polymarket_private_key: Secret | None = None
    """64 lower-case hex digits without 0x."""
    polymarket_funder_address: str | None = None
    """0x and 40 hex digits."""
    polymarket_signature_type: int | None = None
    polymarket_api_key: Secret | None = None
    polymarket_api_secret: Secret | None = None
    polymarket_api_passphrase: Secret | None = None
    polymarket_relayer_api_key: Secret | None = None
    polymarket_builder_api_key: Secret | None = None
    polymarket_builder_secret: Secret | None = None
    polymarket_builder_passphrase: Secret | None = None
    kalshi_api_key_id: Secret | None = None
    kalshi_private_key_path: Path | None = None
    kalshi_private_key: Secret | None = None
    """PEM text with real line ends; see `kalshi_pem` for the key wherever it comes from."""
    polygon_rpc_url: Secret | None = None
    warnings: tuple[str, ...] = ()
    """Lines for the log: files that others can read, unknown names, values that are shadowed. They hold no secret."""
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Where each variable came from: `environment` or the path of the .env file. Names only, no values."""
    env_file: Path | None = None

    @classmethod
    def load(cls, env_file: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """From `.env` and the environment, which wins. A blank value counts as not set.

        `env_file=None` reads `.env` of the current directory if it exists (parents are not searched); a file that is
        named must exist. `environ=None` is the real environment. Raises ConfigError with a problem per wrong variable:
        its name, where the value came from and what is expected, never the value of a secret.
        """
        raw = dotenv.read(env_file, environ, VARIABLES)
        problems: list[str] = []

        def take(name: str, parse: Callable[[str], T]) -> T | None:
            value = raw.values.get(name)
            if value is None or not values.clean(value.reveal()):
                raw.sources.pop(name, None)
                return None
            try:
                return parse(value.reveal())
            except values.Wrong as error:
                problems.append(f"{name} (from {_source(raw.sources[name])}) {error}")
            return None

        settings = cls(
            where=take("PMKIT_WHERE", values.one_of(Where)),
            mode=take("PMKIT_MODE", values.one_of(Mode)),
            venues=take("PMKIT_VENUES", values.list_of(Venue)) or (),
            assets=take("PMKIT_ASSETS", values.assets) or (),
            interval=take("PMKIT_INTERVAL", values.interval),
            period=take("PMKIT_PERIOD", values.period),
            log_level=take("PMKIT_LOG_LEVEL", values.log_level) or "INFO",
            log_dir=take("PMKIT_LOG_DIR", values.path) or Path("logs"),
            trade_dir=take("PMKIT_TRADE_DIR", values.path) or Path("trades"),
            data_dir=take("PMKIT_DATA_DIR", values.path) or Path("data"),
            polymarket_private_key=take("POLYMARKET_PRIVATE_KEY", values.private_key),
            polymarket_funder_address=take("POLYMARKET_FUNDER_ADDRESS", values.address),
            polymarket_signature_type=take("POLYMARKET_SIGNATURE_TYPE", values.signature_type),
            polymarket_api_key=take("POLYMARKET_API_KEY", values.token),
            polymarket_api_secret=take("POLYMARKET_API_SECRET", values.base64_secret),
            polymarket_api_passphrase=take("POLYMARKET_API_PASSPHRASE", values.token),
            polymarket_relayer_api_key=take("POLYMARKET_RELAYER_API_KEY", values.token),
            polymarket_builder_api_key=take("POLYMARKET_BUILDER_API_KEY", values.token),
            polymarket_builder_secret=take("POLYMARKET_BUILDER_SECRET", values.base64_secret),
            polymarket_builder_passphrase=take("POLYMARKET_BUILDER_PASSPHRASE", values.token),
            kalshi_api_key_id=take("KALSHI_API_KEY_ID", values.token),
            kalshi_private_key_path=take("KALSHI_PRIVATE_KEY_PATH", values.path),
            kalshi_private_key=take("KALSHI_PRIVATE_KEY", values.pem),
            polygon_rpc_url=take("POLYGON_RPC_URL", values.url),
            env_file=raw.file,
        )
        if problems:
            raise ConfigError("wrong settings:", problems)
        warnings = (*raw.warnings, *_doubts(settings))
        return replace(settings, warnings=warnings, sources=raw.sources)

    def without_keys(self) -> Settings:
        """The same settings with nothing in them that can sign or log in: what a dry-run's bot is given."""
        secrets = [part.name for part in fields(self) if isinstance(getattr(self, part.name), Secret)]
        gone: dict[str, Any] = dict.fromkeys((*secrets, "kalshi_private_key_path"))
        return replace(self, **gone)

    def require(self, mode: Mode | str, venues: Iterable[Venue | str], where: Where | str) -> None:
        """Raises ConfigError that lists all that is missing or unusable for this choice: names, and where to get them.

        Dry-run needs nothing, but a Kalshi key that was given must be usable. Local venues need nothing at all.
        """
        try:
            choice = Mode(mode), [Venue(venue) for venue in venues], Where(where)
        except ValueError as error:
            raise ConfigError(f"no such choice: {error}") from None
        problems = self._missing(*choice)
        if problems:
            raise ConfigError(f"{choice[0]} on {' and '.join(choice[1])} ({choice[2]}) cannot start:", problems)

    def kalshi_pem(self) -> Secret | None:
        """The Kalshi private key as PEM text, from the file or the variable; None when neither is set.

        Reads the file, so call it before the loop runs. Raises ConfigError when the file is missing, unreadable, a
        public key, encrypted or of a kind that Kalshi does not take.
        """
        if self.kalshi_private_key_path is not None:
            name = "KALSHI_PRIVATE_KEY_PATH"
            pem = read_pem(self.kalshi_private_key_path, name)
        elif self.kalshi_private_key is not None:
            name, pem = "KALSHI_PRIVATE_KEY", self.kalshi_private_key
        else:
            return None
        problem = problem_of(pem)
        if problem is not None:
            raise ConfigError(f"{name} {problem}")
        return pem

    def _missing(self, mode: Mode, venues: list[Venue], where: Where) -> list[str]:
        if where is Where.LOCAL:
            return []
        problems: list[str] = []
        if Venue.POLYMARKET in venues:
            if where is Where.DEMO:
                problems.append("Polymarket has no demo: choose real or local for it")
            elif mode is Mode.LIVE:
                problems += self._missing_for_polymarket()
        if Venue.KALSHI in venues:
            problems += self._missing_for_kalshi(mode)
        return problems

    def _missing_for_polymarket(self) -> list[str]:
        problems: list[str] = []
        if self.polymarket_private_key is None:
            problems.append(_lacks("POLYMARKET_PRIVATE_KEY"))
        absent = _absent_of_triple(self)
        if len(absent) < 3:
            problems += [_lacks(name) + " (the other API credentials are set)" for name in absent]
        return problems

    def _missing_for_kalshi(self, mode: Mode) -> list[str]:
        has_key = self.kalshi_private_key_path is not None or self.kalshi_private_key is not None
        problems: list[str] = []
        if mode is Mode.LIVE:
            if self.kalshi_api_key_id is None:
                problems.append(_lacks("KALSHI_API_KEY_ID"))
            if not has_key:
                problems.append(_lacks("KALSHI_PRIVATE_KEY_PATH") + ", or KALSHI_PRIVATE_KEY with the PEM text")
        if has_key and (mode is Mode.LIVE or self.kalshi_api_key_id is not None):
            try:
                self.kalshi_pem()
            except ConfigError as error:
                problems.append(str(error))
        return problems


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every secret text of these settings in clear, for the log's redactor and nothing else. Reads the Kalshi key file.

    Of a node's address only what looks like a key is a secret: user and password, long parts of the path, query values.
    """
    found = [
        secret.reveal()
        for secret in (
            settings.polymarket_private_key,
            settings.polymarket_api_key,
            settings.polymarket_api_secret,
            settings.polymarket_api_passphrase,
            settings.polymarket_relayer_api_key,
            settings.polymarket_builder_api_key,
            settings.polymarket_builder_secret,
            settings.polymarket_builder_passphrase,
            settings.kalshi_api_key_id,
            settings.kalshi_private_key,
        )
        if secret is not None
    ]
    if settings.kalshi_private_key_path is not None:
        # A key that cannot be read cannot leak; `require` reports it where the key is needed.
        with suppress(ConfigError):
            found.append(read_pem(settings.kalshi_private_key_path, "KALSHI_PRIVATE_KEY_PATH").reveal())
    if settings.polygon_rpc_url is not None:
        found += secrets_in_url(settings.polygon_rpc_url.reveal())
    return tuple(dict.fromkeys(found))


def secrets_in_url(url: str) -> list[str]:
    parts = urlsplit(url)
    found = [part for part in (parts.username, parts.password) if part]
    found += [part for part in unquote(parts.path).split("/") if len(part) >= _MIN_URL_SECRET_CHARS]
    found += [value for _, value in parse_qsl(parts.query) if len(value) >= 4]
    return found


def _source(source: str) -> str:
    return "the environment" if source == dotenv.ENVIRONMENT else source


def _lacks(name: str) -> str:
    variable = VARIABLES[name]
    return f"{name} is missing: {variable.help}. Get it: {variable.where_to_get}"


def _absent_of_triple(settings: Settings) -> list[str]:
    return [
        name
        for name, value in (
            ("POLYMARKET_API_KEY", settings.polymarket_api_key),
            ("POLYMARKET_API_SECRET", settings.polymarket_api_secret),
            ("POLYMARKET_API_PASSPHRASE", settings.polymarket_api_passphrase),
        )
        if value is None
    ]


def _doubts(settings: Settings) -> list[str]:
    """Combinations that are not wrong in every mode, but hardly meant."""
    doubts: list[str] = []
    absent = _absent_of_triple(settings)
    if 0 < len(absent) < 3:
        doubts.append(f"{', '.join(absent)} missing: a dry-run goes without Polymarket's API credentials, live refuses")
    if settings.kalshi_private_key_path is not None:
        if settings.kalshi_private_key is not None:
            doubts.append("KALSHI_PRIVATE_KEY_PATH is used, KALSHI_PRIVATE_KEY beside it is not")
        if settings.kalshi_private_key_path.is_file():
            doubts += dotenv.exposure(settings.kalshi_private_key_path)
    has_key = settings.kalshi_private_key_path is not None or settings.kalshi_private_key is not None
    if has_key != (settings.kalshi_api_key_id is not None):
        lacking = "KALSHI_API_KEY_ID" if has_key else "KALSHI_PRIVATE_KEY_PATH"
        doubts.append(f"{lacking} missing: a dry-run goes without a Kalshi key, live refuses")
    return doubts
