"""The texts of variables into values. Pure.

Every function takes the variable's text and raises `Wrong`, whose message says what is expected and never holds the
text of a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pmkit.config.secret import Secret

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""Binance's candle intervals, case-sensitive (binance.md, "Klines"). The Up/Down markets of pmkit are those of 15m."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00a0"
_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_SHOWN_CHARS = 24

E = TypeVar("E", bound=StrEnum)


class Wrong(ValueError):
    """What a variable expects, in words that follow its name."""


def clean(text: str) -> str:
    """Without surrounding blanks, byte-order mark, invisible characters and one or two pairs of quotes."""
    for _ in range(3):
        text = text.strip().strip(_INVISIBLE).strip()
        if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1]
    return text


def shown(text: str) -> str:
    """A wrong value for a message: quoted and escaped. Only for variables that are not secret.

    A long one is not shown: it may be a key that was pasted into the wrong line.
    """
    return ascii(text) if len(text) <= _SHOWN_CHARS else f"a text of {len(text)} characters"


def _either(choices: Iterable[str]) -> str:
    names = list(choices)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def one_of(kind: type[E]) -> Callable[[str], E]:
    """A parser for one member; case, blanks and underscores do not matter ("Dry Run" is dry-run)."""

    def parse(text: str) -> E:
        name = re.sub(r"[\s_-]+", "-", clean(text)).casefold()
        for member in kind:
            if name in {member.value, member.value.replace("-", "")}:
                return member
        raise Wrong(f"expects {_either(kind)}, not {shown(text)}")

    return parse


def list_of(kind: type[E]) -> Callable[[str], tuple[E, ...]]:
    """A parser for members separated by commas or blanks; repeats are dropped, the order stays."""
    parse_one = one_of(kind)

    def parse(text: str) -> tuple[E, ...]:
        return tuple(dict.fromkeys(parse_one(part) for part in re.split(r"[,;\s]+", clean(text)) if part))

    return parse


def assets(text: str) -> tuple[str, ...]:
    """Asset symbols such as BTC, upper case, separated by commas or blanks."""
    names = tuple(dict.fromkeys(part.upper() for part in re.split(r"[,;\s]+", clean(text)) if part))
    for name in names:
        if not re.fullmatch(r"[A-Z0-9]{2,12}", name):
            raise Wrong(f"expects symbols such as BTC,ETH, not {shown(name)}")
    return names


def interval(text: str) -> str:
    """One of INTERVALS (1m is a minute, 1M a month)."""
    name = clean(text)
    if name not in INTERVALS:
        raise Wrong(f"expects one of {' '.join(INTERVALS)} (1m is a minute, 1M a month), not {shown(text)}")
    return name


def log_level(text: str) -> str:
    """One of LOG_LEVELS."""
    name = clean(text).upper()
    if name not in LOG_LEVELS:
        raise Wrong(f"expects {_either(LOG_LEVELS)}, not {shown(text)}")
    return name


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time: the last so-and-so long, or between two moments (UTC, the end excluded; None means now)."""

    text: str
    last: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """(start, end) as aware UTC datetimes, seen from `now`."""
        if self.last is not None:
            return now - self.last, now
        if self.start is None:
            raise ValueError("a Period has a length or a start")
        return self.start, now if self.end is None else self.end


_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def period(text: str) -> Period:
    """`90m`, `36h`, `7d`, `4w`, or `2026-11-01..2026-11-08` (UTC, the end excluded), or `2026-11-01..` (until now).

    `full` is everything there is: a start before all markets.
    """
    name = clean(text)
    if name.casefold() == "full":
        return Period("full", start=datetime(1970, 1, 1, tzinfo=UTC))
    if found := re.fullmatch(r"([1-9][0-9]{0,5})\s*([mhdw])", name):
        return Period(name, last=timedelta(**{_UNITS[found[2]]: int(found[1])}))
    first, dots, last = name.partition("..")
    if dots:
        try:
            start, end = _moment(first.strip()), _moment(last.strip()) if last.strip() else None
        except (ValueError, OverflowError):
            pass
        else:
            if end is not None and end <= start:
                raise Wrong(f"expects a start before its end, not {shown(text)}")
            return Period(name, start=start, end=end)
    raise Wrong(f"expects a length such as 36h, 7d or 4w, or 2026-11-01..2026-11-08, not {shown(text)}")


def path(text: str) -> Path:
    """A path; ~ is the home directory."""
    name = clean(text)
    if "-----BEGIN" in name or "\n" in name or "\\n" in name:
        raise Wrong("expects the path of a file, not its content")
    if "\0" in name or len(name) > 1024:
        raise Wrong("expects a path")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise Wrong("expects a path; there is no home directory to put in place of ~") from None


def private_key(text: str) -> Secret:
    """A secp256k1 private key as 64 lower-case hex digits without 0x; given with or without."""
    digits = re.sub(r"^0[xX]", "", clean(text))
    if len(digits.split()) in (12, 15, 18, 21, 24):
        raise Wrong("expects the private key of one account (64 hex digits); this looks like a seed phrase")
    if len(digits) == 40:
        raise Wrong("expects a private key (64 hex digits); this has the length of an address")
    if len(digits) != 64:
        raise Wrong(f"expects 64 hex digits, with or without 0x; this has {len(digits)} characters")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise Wrong("expects 64 hex digits, with or without 0x; there is another character among these 64")
    if not 0 < int(digits, 16) < _SECP256K1_ORDER:
        raise Wrong("expects a private key; this number is none on the curve secp256k1")
    return Secret(digits.lower())


def address(text: str) -> str:
    """An EVM address: 0x and 40 hex digits, case as given. Mixed case must match its checksum (EIP-55)."""
    digits = re.sub(r"^0[xX]", "", clean(text))
    if not re.fullmatch(r"[0-9a-fA-F]{40}", digits):
        raise Wrong(f"expects an address: 0x and 40 hex digits; this has {len(digits)} characters after 0x")
    if digits not in (digits.lower(), digits.upper()) and digits != _checksummed(digits):
        raise Wrong("expects an address; the capital letters of this one do not fit its digits, so one is mistyped")
    return "0x" + digits


def _checksummed(digits: str) -> str:
    from Crypto.Hash import keccak

    lower = digits.lower()
    hashed = keccak.new(data=lower.encode(), digest_bits=256).hexdigest()
    return "".join(char.upper() if int(nibble, 16) > 7 else char for char, nibble in zip(lower, hashed, strict=False))


def signature_type(text: str) -> int:
    """0 EOA, 1 proxy wallet, 2 Safe, 3 deposit wallet (polymarket-trading.md 2.3)."""
    name = clean(text)
    if name not in {"0", "1", "2", "3"}:
        raise Wrong(f"expects 0 (EOA), 1 (proxy), 2 (Safe) or 3 (deposit wallet), not {shown(text)}")
    return int(name)


def token(text: str) -> Secret:
    """A credential without blanks: an API key, a key id, a passphrase."""
    name = clean(text)
    if not re.fullmatch(r"[\x21-\x7e]{4,256}", name):
        raise Wrong("expects 4 to 256 characters without blanks")
    return Secret(name)


def base64_secret(text: str) -> Secret:
    """Polymarket's API secret: URL-safe base64."""
    name = clean(text)
    try:
        decoded = base64.b64decode(name.replace("-", "+").replace("_", "/") + "=" * (-len(name) % 4), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) < 8:
        raise Wrong("expects the API secret as the venue gave it: URL-safe base64")
    return Secret(name)


def pem(text: str) -> Secret:
    """The text of a PEM private key; literal \\n, CRLF, blanks in place of line ends are put right."""
    name = clean(text).replace("\\r", "").replace("\\n", "\n").replace("\r", "")
    found = _PEM.search(name)
    if found is None:
        raise Wrong("expects PEM text from -----BEGIN ... PRIVATE KEY----- to -----END ... PRIVATE KEY-----")
    label, body = found[1], found[2]
    if not label.endswith("PRIVATE KEY"):
        raise Wrong(f"expects a private key; this PEM text is a {label.lower()}")
    if label.startswith("OPENSSH"):
        raise Wrong("expects PKCS#1 or PKCS#8 PEM; this is OpenSSH's own format (ssh-keygen -p -m PEM converts it)")
    if label.startswith("ENCRYPTED") or "ENCRYPTED" in body:
        raise Wrong("expects a key without a passphrase; this one is encrypted")
    digits = "".join(body.split())
    lines = "\n".join(digits[at : at + 64] for at in range(0, len(digits), 64))
    return Secret(f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")


def url(text: str) -> Secret:
    """An http(s) address. It is a Secret because providers put the API key into it."""
    name = clean(text)
    try:
        parts = urlsplit(name)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", name):
        raise Wrong("expects an address that begins with https://")
    return Secret(name)
