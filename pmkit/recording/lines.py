"""The lines of a recording: JSON, one event each, in the order in which the recorder saw them.

    {"type":"start","at_ns":...,"format":1,"version":"0.1.0","endpoints":{...},"factor":1.0,"about":{"bot":...}}
    {"type":"running","at_ns":...}
    {"type":"request","at_ns":...,"id":7,"method":"GET","url":"https://clob.polymarket.com/book?token_id=1"}
    {"type":"answer","at_ns":...,"id":7,"status":200,"headers":{"date":"..."},"text":"{...}"}
    {"type":"connect","at_ns":...,"conn":1,"name":"polymarket market 1","url":"wss://..."}
    {"type":"open","at_ns":...,"conn":1}
    {"type":"out","at_ns":...,"conn":1,"text":"{...}"}
    {"type":"in","at_ns":...,"conn":1,"text":"[...]"}
    {"type":"close","at_ns":...,"conn":1,"by":"venue","code":1006,"reason":""}
    {"type":"decision","at_ns":...,"text":"{...}"}
    {"type":"end","at_ns":...,"lines":9,"lost":0}

`at_ns` is market time as epoch ns: of a request when it was sent, of an answer or frame when it was read. `text` is
what was on the wire; where that is no UTF-8, `raw` holds its base64 instead. What is private (own orders, log-ins)
has its line, so that one sees when it happened, with `private` and its `size` in bytes, without path and content.

A hole is said: `lost` counts lines that could not be kept and when the first of them was. A file without `end` was cut
off (the process was killed, the disk was full): what is in it is good, what came after its last line is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError

FORMAT: Final = 1


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type"):
    at_ns: int


class _Content(_Line, kw_only=True):
    """`text` or `raw`: what was on the wire. `size`: how many bytes it was, where it is private."""

    text: str = ""
    raw: bytes | None = None
    size: int = 0
    private: bool = False

    def fill(self, data: bytes) -> None:
        """Keep what was on the wire."""
        try:
            self.text = data.decode()
        except UnicodeDecodeError:
            self.raw = data

    @property
    def data(self) -> bytes:
        """What was on the wire."""
        return self.text.encode() if self.raw is None else self.raw


class Start(_Line, tag="start", kw_only=True):
    """The first line. `factor`: market seconds in a wall second. `about`: what was run."""

    version: str
    endpoints: Endpoints
    format: int = FORMAT
    factor: float = 1.0
    about: Mapping[str, str | int | list[str] | None] = {}


class Request(_Content, tag="request", kw_only=True):
    """A request that was sent; its body is the content. A private one names the host only."""

    id: int
    method: str
    url: str


class Answer(_Content, tag="answer", kw_only=True):
    """The answer to request `id`. `streamed`: its body went elsewhere and is not here."""

    id: int
    status: int
    headers: Mapping[str, str] = {}
    streamed: bool = False


class Unanswered(_Line, tag="unanswered", kw_only=True):
    """No answer to request `id`: the class of what was raised instead."""

    id: int
    reason: str


class Connect(_Line, tag="connect", kw_only=True):
    """An attempt to open socket `conn`. The URL has no query."""

    conn: int
    name: str
    url: str
    private: bool = False


class Open(_Line, tag="open", kw_only=True):
    """The handshake is done."""

    conn: int


class Failed(_Line, tag="failed", kw_only=True):
    """It did not come up. `status`: of the answer to the handshake, 0 without one."""

    conn: int
    reason: str
    status: int = 0


class Heard(_Content, tag="in", kw_only=True):
    """A frame from the venue."""

    conn: int


class Said(_Content, tag="out", kw_only=True):
    """A frame to the venue."""

    conn: int


class Close(_Line, tag="close", kw_only=True):
    """The connection is gone. `by`: "venue" or "us". `code` 1006: without a goodbye."""

    conn: int
    by: str
    code: int
    reason: str = ""


class Decision(_Content, tag="decision", kw_only=True):
    """What the bot decided (`pmkit.bot.decisions`). Of dry-runs only: those of an account are private."""


class Running(_Line, tag="running"):
    """Here the bot was started: a replay begins at this moment."""


class Stopping(_Line, tag="stopping", kw_only=True):
    """From here on the bot was on its way out."""


class Lost(_Line, tag="lost", kw_only=True):
    """A hole: so many lines are missing here, the first of them of `since_ns`."""

    since_ns: int
    lines: int


class End(_Line, tag="end", kw_only=True):
    """The last line: how many are before it, and how many are missing."""

    lines: int
    lost: int


Line = (
    Start | Running | Request | Answer | Unanswered | Connect | Open | Failed | Heard | Said | Close | Decision
    | Stopping | Lost | End
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """With its line end."""
    return _encoder.encode(line) + b"\n"


def decode(texts: Iterable[bytes]) -> Iterator[Line | None]:
    """The lines of a recording, None for each that does not read. Raises ConfigError where it is no recording, or one
    of a later format.
    """
    begun = False
    for text in texts:
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, ValueError):
            if not begun:
                raise ConfigError(f"no recording of pmkit: its first line is {text[:60]!r}") from None
            yield None
            continue
        if not begun:
            if not isinstance(line, Start):
                raise ConfigError("no recording of pmkit: it has no start line")
            if line.format > FORMAT:
                raise ConfigError(
                    f"the recording is of format {line.format}, this version reads {FORMAT}: take a newer pmkit"
                )
            begun = True
        yield line


def is_recording(first: bytes) -> bool:
    """Whether a file that begins with this line is a recording."""
    try:
        return isinstance(_decoder.decode(first), Start)
    except (msgspec.DecodeError, ValueError):
        return False
