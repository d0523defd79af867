"""A small reader of OpenAPI and AsyncAPI files: does an answer fit its schema? Knows what Kalshi's files use.

Unknown keywords that could refuse something raise, so that a check cannot pass by not being done.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_WITHOUT_EFFECT = {
    "description",
    "deprecated",
    "example",
    "examples",
    "default",
    "title",
    "readOnly",
    "x-parser-schema-id",
}
_KNOWN = _WITHOUT_EFFECT | {
    "$ref",
    "additionalProperties",
    "allOf",
    "const",
    "enum",
    "format",
    "items",
    "maximum",
    "maxItems",
    "maxLength",
    "minimum",
    "minItems",
    "nullable",
    "pattern",
    "properties",
    "required",
    "type",
}


_ANYTHING: dict[str, Any] = {}


@cache
def _document(path: Path) -> dict[str, Any]:
    """Read once per process, which takes a second; nobody changes it."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(path.read_text(), Loader=loader)  # noqa: S506 - a safe loader
    return found


class Spec:
    """One file. `document` stays as it is."""

    def __init__(self, path: Path) -> None:
        self._take(_document(path))

    @classmethod
    def of(cls, document: dict[str, Any]) -> Spec:
        """A file that was read already."""
        made = cls.__new__(cls)
        made._take(document)
        return made

    def _take(self, document: dict[str, Any]) -> None:
        self.document = document
        self._forms: list[tuple[str, re.Pattern[str]]] | None = None
        # By the id of a schema: itself, whose keywords are known; the fields of its objects; rows of lists that fit it,
        # as JSON, since pages repeat each other's.
        self._read: dict[int, dict[str, Any]] = {}
        self._named: dict[int, set[str] | None] = {}
        self._fit: set[tuple[int, bool, bytes]] = set()

    def schema(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.document["components"]["schemas"][name]
        return found

    def answer(self, path: str, method: str = "get", status: str = "200") -> dict[str, Any]:
        """The schema of a REST answer."""
        response = self.document["paths"][path][method]["responses"][status]
        found: dict[str, Any] = response["content"]["application/json"]["schema"]
        return found

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """The template of a REST path and what it says of a method; a path without a parameter goes first."""
        if path not in self.document["paths"]:
            path = next((name for name, form in self._templates() if form.fullmatch(path)), "")
        found = self.document["paths"].get(path, {}).get(method.lower())
        return None if found is None else (path, found)

    def _templates(self) -> list[tuple[str, re.Pattern[str]]]:
        if self._forms is None:
            # Those with fewer parameters first: a word in the path goes before a parameter.
            names = sorted((name for name in self.document["paths"] if "{" in name), key=lambda name: name.count("{"))
            self._forms = [(name, re.compile(re.sub(r"{[^}]+}", "[^/]+", name))) for name in names]
        return self._forms

    def parameters(self, operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What may stand in the query, by name."""
        found = [self.resolved(one) for one in operation.get("parameters", ())]
        return {one["name"]: one for one in found if one["in"] == "query"}

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part of the file, or what it refers to."""
        while "$ref" in part:
            target: Any = self.document
            for step in part["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            part = target
        return part

    def _fields(self, schema: dict[str, Any]) -> set[str] | None:
        """The fields that an object may have; None where anything may be in it."""
        if "$ref" in schema:
            return self._fields(self.resolved(schema))
        if schema.get("additionalProperties"):
            return None
        found = set(schema.get("properties", ()))
        for part in schema.get("allOf", ()):
            inside = self._fields(part)
            if inside is None:
                return None
            found |= inside
        return found or None

    def problems(self, value: Any, schema: dict[str, Any], where: str = "$", *, strict: bool = False) -> list[str]:
        """All ways in which a value does not fit. `strict`: a field that the file does not name is one of them."""
        found = self._problems(value, schema, where, strict)
        if strict and isinstance(value, dict):
            if id(schema) not in self._named:
                self._named[id(schema)] = self._fields(schema)
            if (fields := self._named[id(schema)]) is not None:
                found += [f"{where}: unknown field {name}" for name in value if name not in fields]
        return found

    def _problems(self, value: Any, schema: dict[str, Any], where: str, strict: bool) -> list[str]:
        if id(schema) not in self._read:
            unknown = {name for name in schema if name not in _KNOWN and not name.startswith("x-")}
            if unknown:
                raise NotImplementedError(f"{where}: keywords {unknown}")
            self._read[id(schema)] = schema
        if value is None and schema.get("nullable"):
            return []  # also beside $ref and allOf, whatever those say
        found: list[str] = []
        if "$ref" in schema:
            found += self._problems(value, self.resolved(schema), where, strict)
        for part in schema.get("allOf", ()):
            found += self._problems(value, part, where, strict)
        if value is None:
            if "type" in schema:
                found.append(f"{where}: null")
            return found
        kind = schema.get("type")
        if kind is not None:
            fits = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
            if not fits:
                return [*found, f"{where}: {value!r} is not {kind}"]
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{where}: {value!r} is none of {schema['enum']}")
        if "const" in schema and value != schema["const"]:
            found.append(f"{where}: {value!r} is not {schema['const']!r}")
        if isinstance(value, str):
            found += _text_problems(value, schema, where)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if "minimum" in schema and value < schema["minimum"]:
                found.append(f"{where}: {value} is below {schema['minimum']}")
            if "maximum" in schema and value > schema["maximum"]:
                found.append(f"{where}: {value} is above {schema['maximum']}")
        if isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                found.append(f"{where}: {len(value)} items")
            items = schema.get("items", _ANYTHING)
            for place, item in enumerate(value):
                row = (id(items), strict, msgspec.json.encode(item)) if isinstance(item, dict) else None
                if row is not None and row in self._fit:
                    continue
                wrong = self.problems(item, items, f"{where}[{place}]", strict=strict)
                found += wrong
                if row is not None and not wrong:
                    self._fit.add(row)
        if isinstance(value, dict):
            found += [f"{where}: no {name}" for name in schema.get("required", ()) if name not in value]
            for name, part in schema.get("properties", {}).items():
                if name in value:
                    found += self.problems(value[name], part, f"{where}.{name}", strict=strict)
        return found


def _text_problems(value: str, schema: dict[str, Any], where: str) -> list[str]:
    found: list[str] = []
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} does not match {schema['pattern']}")
    if len(value) > schema.get("maxLength", len(value)):
        found.append(f"{where}: too long")
    try:
        if schema.get("format") == "date-time":
            datetime.fromisoformat(value)
        elif schema.get("format") == "uuid":
            UUID(value)
    except ValueError:
        found.append(f"{where}: {value!r} is no {schema['format']}")
    return found
