"""`Secret`: a text that does not print itself."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, Self, final

from pmkit.errors import ConfigError

MASK = "Secret(***)"


@final
class Secret:
    """A key, passphrase or other credential. Only `reveal()` gives the text.

    repr, str and format give `Secret(***)`; comparing takes the same time wherever two secrets differ; it cannot be
    pickled or turned into JSON, and has no `__dict__` that a dump would walk. A copy is the same object.
    """

    __slots__ = ("__text",)

    __text: str

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a Secret holds a str, not {type(text).__name__}")
        object.__setattr__(self, "_Secret__text", text)

    def reveal(self) -> str:
        """The text itself. Keep the result out of attributes, messages and logs."""
        return self.__text

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return MASK

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = self.__text, other.__text
        return hmac.compare_digest(mine.encode("utf-8", "surrogatepass"), theirs.encode("utf-8", "surrogatepass"))

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the variable's name to the other process instead")


def revealed(secret: object, name: str) -> str:
    """The text of a Secret. Raises ConfigError for a plain text, which would be printed by accident."""
    if not isinstance(secret, Secret):
        raise ConfigError(f"{name} is a {type(secret).__name__} and not a Secret: give pmkit.Secret(...)")
    return secret.reveal()
