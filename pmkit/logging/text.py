"""Text that is safe to show: on one line, without control characters. Pure."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL; zero-width and bidirectional marks; line and paragraph separators; BOM, interlinear and tag
# characters; lone surrogates. All can forge lines, hide text or drive a terminal.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def escape(text: str) -> str:
    r"""Every unsafe character as Python writes it in a literal: a newline becomes \n, ESC \x1b. Never raises."""
    return _UNSAFE.sub(_escaped, text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, and how many are not shown."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters)"
