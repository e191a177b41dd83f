"""Reading what people hand in: integrations as YAML, records as JSON lines.

The formats are documented in docs/integrations.md and docs/records.md. An error names the file, the
place in it, and what is wrong there.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from kvitt.domain.integrations import Integration
from kvitt.domain.records import Record
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)


_PROBLEMS = 5


class _Loader(yaml.SafeLoader):
    """YAML as usual, with two exceptions.

    A key that comes twice is an error, not a silent choice of one. And a code like 0300, which YAML
    would read as an octal number, stays as it was written.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as in the library
        keys = [key.value for key, _ in node.value]
        doubles = sorted({key for key in keys if keys.count(key) > 1})
        if doubles:
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(doubles)} comes more than once", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | str:
        plain = re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value)
        return int(node.value) if plain else node.value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)


class FileError(ValueError):
    """A file cannot be used; the message says where and why."""


def read_integrations(path: Path) -> list[Integration]:
    """Return the integrations of a YAML file: a list, or a mapping with `integrations`."""
    content = _yaml(path)
    if isinstance(content, dict):
        content = cast("dict[str, Any]", content).get("integrations")
    if not isinstance(content, list) or not content:
        raise FileError(f"{path} holds no list of integrations; see docs/integrations.md")
    integrations = [
        _known(_validated(Integration, item, f"{path}, integration {number}"), path)
        for number, item in enumerate(cast("list[Any]", content), start=1)
    ]
    _no_doubles(path, [integration.id for integration in integrations])
    return integrations


def read_mapping(path: Path, integration: Integration) -> Integration:
    """Return an integration as a YAML file would have it: its mapping alone, or all of it.

    The file is one of integrations, in which it is found by its id, or holds a mapping by itself.
    """
    content = _yaml(path)
    if isinstance(content, list) or (isinstance(content, dict) and "integrations" in content):
        found = [each for each in read_integrations(path) if each.id == integration.id]
        if not found:
            raise FileError(f"{path} does not name {integration.id}")
        return found[0]
    if isinstance(content, dict) and set(cast("dict[str, Any]", content)) == {"mapping"}:
        content = cast("dict[str, Any]", content)["mapping"]
    told: dict[str, Any] = {**integration.model_dump(), "mapping": content}
    return _known(_validated(Integration, told, f"{path}"), path)


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(_text(path), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise FileError(f"{path} is no YAML: {error}") from error


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file of JSON lines, one at a time; empty lines are passed over."""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield _validated(Record, _json(line, path, number), f"{path}, line {number}")


def _json(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line, parse_float=Decimal)
    except ValueError as error:
        raise FileError(f"{path}, line {number} is no JSON: {error}") from error


def _validated(model: type[M], item: Any, where: str) -> M:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        problems = _problems((e["loc"], e["msg"]) for e in error.errors())
        name = f" ({item['id']})" if isinstance(item, dict) and "id" in item else ""
        raise FileError(f"{where}{name}: {problems}") from error


def _problems(found: Iterable[tuple[tuple[int | str, ...], str]]) -> str:
    told = [_problem(place, message) for place, message in found]
    more = [f"and {len(told) - _PROBLEMS} more"] if len(told) > _PROBLEMS else []
    return "; ".join(told[:_PROBLEMS] + more)


def _problem(place: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ")
    field = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    return f"{field}: {said}" if field else said


def _known(integration: Integration, path: Path) -> Integration:
    if integration.vendor not in VENDORS:
        raise FileError(
            f"{path} ({integration.id}): vendor: {integration.vendor!r} is none that kvitt knows; "
            f"it knows {', '.join(sorted(VENDORS))}"
        )
    objections = VENDORS[integration.vendor].mapping_objections(integration.mapping)
    if objections:
        problems = _problems((("mapping", *place), words) for place, words in objections)
        raise FileError(f"{path} ({integration.id}): {problems}")
    return integration


def _no_doubles(path: Path, ids: list[str]) -> None:
    doubles = sorted({i for i in ids if ids.count(i) > 1})
    if doubles:
        raise FileError(f"{path} names {', '.join(doubles)} more than once")


def keep_apart(path: Path, wanted: Sequence[Integration], there: Sequence[Integration]) -> None:
    """Raise FileError where voucher numbers would meet in the same books.

    As the ledger does, but of the whole file with what is `there`, before anything is saved.
    """
    named = {integration.id for integration in wanted}
    others = [*wanted, *(each for each in there if each.id not in named)]
    for one in wanted:
        for other in others:
            if _share_books(one, other) and _source_of(one) in ("", _source_of(other)):
                raise FileError(
                    f"{path} ({one.id}): mapping.source: {other.id} writes into the same books "
                    f"(connection {one.connection}), and {_why_they_meet(one)}, or their voucher "
                    "numbers meet there"
                )


def _share_books(one: Integration, other: Integration) -> bool:
    together = (one.vendor, one.connection) == (other.vendor, other.connection)
    counting = one.enabled and other.enabled and VENDORS[one.vendor].numbers_by_source
    return together and counting and one.id != other.id


def _source_of(integration: Integration) -> str:
    return (integration.mapping.source or "").strip().upper()


def _why_they_meet(one: Integration) -> str:
    source = _source_of(one)
    if not source:
        return f"{one.id} has no source. Give it one of its own"
    return f"both have the source {source}. Give one of them another"


def _text(path: Path) -> str:
    return "".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    # With or without the byte order mark that some programs write first.
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} cannot be read: it is no text in UTF-8") from error
