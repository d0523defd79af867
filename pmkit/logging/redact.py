"""Keeps secrets out of everything that is printed or logged.

Two nets: every known secret in every spelling that turns up in logs (plain, URL-quoted, base64, JSON- and repr-escaped,
hex), and patterns that hold for unknown ones (auth headers, `"secret":"..."`, PEM private keys, 65-byte signatures,
user and key in URLs). 64 hex digits alone are no pattern: condition ids and transaction hashes look the same and must
stay readable, so a private key is found because it is known.

There is one redactor per process (`REDACTOR`), since a secret is a secret wherever it shows up.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from pmkit.config.secret import Secret

MASK = "***"
MIN_SECRET_CHARS = 4
_MIN_DERIVED_CHARS = 8
_MIN_PEM_LINE_CHARS = 16

# Names that are public stay: POLY_TIMESTAMP, POLY_NONCE and KALSHI-ACCESS-TIMESTAMP help with clock errors, POLY_PROXY
# and POLY_1271 are names of wallet types.
_HEADER = r"""
    POLY[_-](?:ADDRESS|API[_-]?KEY|PASSPHRASE|SIGNATURE|SECRET|BUILDER[A-Z_-]*)
    | KALSHI-ACCESS-(?:KEY|SIGNATURE)
    | (?:Proxy-)?Authorization
    | X-(?:MBX-)?API-?KEY
    | RELAYER[_-]API[_-]KEY
"""
_FIELD = r"""
    (?:[a-z0-9]+[_-])*
    (?:secret|passphrase|password|signature|api_?key|private_?key|mnemonic|access_?token)
"""
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        f"-----{MASK} PRIVATE KEY-----",
    ),
    (
        # Name: value, 'Name': 'value', "Name": "value", (b'Name', b'value'), Name=value
        re.compile(
            rf"""(?ix) \b({_HEADER}) (\\*["']? \s* (?: [:=] | (?<=["']), ) \s* (?: b? \\*["'] )?)
                 (?: (?:Bearer|Basic|Digest|Token|Key) \s+ )? [^\s"',;\\)\]}}]+"""
        ),
        rf"\1\2{MASK}",
    ),
    (
        re.compile(r"(?i)\b((?:Set-)?Cookie\\*[\"']?\s*(?::|(?<=[\"']),)\s*(?:b?\\*[\"'])?)[^\r\n\"'\\]+"),
        rf"\1{MASK}",
    ),
    (
        # "secret":"value" with any quotes, also when they are escaped themselves
        re.compile(rf"""(?ix) (\\*["']{_FIELD}\\*["'] \s* [:=,] \s* b?\\*["']) (?: [^"'\\] | \\[^"'] )+"""),
        rf"\1{MASK}",
    ),
    (
        # secret=value, secret: value; only what is too long for prose
        re.compile(rf"""(?ix) \b({_FIELD} \s* [:=] \s*) [A-Za-z0-9+/=_.~-]{{16,}}"""),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"(?i)([?&](?:api_?key|key|token|access_token|secret|signature|sig|auth|passphrase|password)=)[^&\s\"']+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(://)[^/\s:@\"']+:[^/\s@\"']+(@)"), rf"\1{MASK}\2"),
    (re.compile(r"(?<![0-9a-fA-F])(?:0x)?[0-9a-fA-F]{130}(?![0-9a-fA-F])"), MASK),
)
_HINTS = ("poly", "kalshi", "auth", "key", "cookie", "secret", "pass", "sign", "sig=", "mnemonic", "token", "://")
"""Every pattern but the last needs one of these (lower case)."""


class Redactor:
    """Replaces secrets by `***`. Thread-safe; calling it costs some 10 us a line."""

    def __init__(self, secrets: Iterable[str | Secret] = ()) -> None:
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self._exact: tuple[str, ...] = ()
        self._hex: tuple[str, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str | Secret) -> None:
        """Know more secrets from now on. Texts below 4 characters are passed over: masking them would mask all."""
        texts = {secret.reveal() if isinstance(secret, Secret) else secret for secret in secrets}
        with self._lock:
            known = self._known | {text for text in texts if len(text.strip()) >= MIN_SECRET_CHARS}
            if known == self._known:
                return
            exact: set[str] = set()
            hexes: set[str] = set()
            for text in known:
                exact |= _spellings(text)
                hexes |= _hex_spellings(text)
            # The longest first: a part of a secret must not be replaced before the whole is.
            self._exact = tuple(sorted(exact, key=len, reverse=True))
            self._hex = tuple(sorted(hexes, key=len, reverse=True))
            self._known = known

    def known(self, text: str) -> str:
        """The text with the known secrets replaced, and nothing else: for what must stay as it came."""
        for spelling in self._exact:
            if spelling in text:
                text = text.replace(spelling, MASK)
        if self._hex:
            lower = text.lower()
            for digits in self._hex:
                if digits in lower:
                    text = re.sub(rf"(?:0[xX])?{digits}", MASK, text, flags=re.IGNORECASE)
                    lower = text.lower()
        return text

    def __call__(self, text: str) -> str:
        """The text with every secret replaced."""
        text = self.known(text)
        lower = text.lower()
        if any(hint in lower for hint in _HINTS):
            for pattern, replacement in _PATTERNS[:-1]:
                text = pattern.sub(replacement, text)
        if len(text) >= 130:
            pattern, replacement = _PATTERNS[-1]
            text = pattern.sub(replacement, text)
        return text


REDACTOR = Redactor()
"""The process's own. `setup_logging` and clients that learn a secret at run time add to it."""


def protect(*secrets: str | Secret) -> None:
    """Never print these: for secrets that are learned at run time, such as derived API credentials."""
    REDACTOR.add(*secrets)


def _spellings(text: str) -> set[str]:
    """How a secret may be written, case-sensitive."""
    found = {text, text.strip(), quote(text, safe=""), quote(text), quote_plus(text)}
    found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    found |= _base64_spellings(text.encode("utf-8", "surrogatepass"))
    if re.fullmatch(r"[A-Za-z0-9+/_-]+=*", text):  # base64 itself: the other alphabet, without padding
        for alphabet in (text.replace("-", "+").replace("_", "/"), text.replace("+", "-").replace("/", "_")):
            bare = alphabet.rstrip("=")
            found |= {alphabet, quote(alphabet, safe="")}
            found |= {bare} if len(bare) >= _MIN_DERIVED_CHARS else set()
    if "-----BEGIN" in text:
        lines = [line for line in text.split("\n") if not line.startswith("-----")]
        found |= {line for line in lines if len(line) >= _MIN_PEM_LINE_CHARS}
        found.add("".join(lines))
    if digits := _hex_digits(text):
        raw = bytes.fromhex(digits)
        found |= {str(int(digits, 16)), repr(raw)[2:-1]} | _base64_spellings(raw)
    return {spelling for spelling in found if len(spelling) >= MIN_SECRET_CHARS}


def _hex_spellings(text: str) -> set[str]:
    """Hex digits in lower case, to be found in any case: of a hex secret its own, of any the bytes'."""
    found = {text.encode("utf-8", "surrogatepass").hex()}
    if digits := _hex_digits(text):
        found.add(digits)
    return found


def _hex_digits(text: str) -> str:
    digits = re.sub(r"^0[xX]", "", text.strip())
    return digits.lower() if re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,}", digits) else ""


def _base64_spellings(raw: bytes) -> set[str]:
    """The part of base64 text that is the same whatever stands around the secret, at all three alignments."""
    found: set[str] = set()
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + raw).decode()
            start = -(-shift * 4 // 3)
            end = (shift + len(raw)) * 8 // 6
            if end - start >= _MIN_DERIVED_CHARS:
                found.add(encoded[start:end])
    return found
