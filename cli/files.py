"""Reading what people hand in: integrations as YAML, records as JSON lines.

The formats are documented in docs/integrations.md and docs/records.md. An error names the file, the
place in it, and what is wrong there.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from kvitt.domain.integrations import Integration
from kvitt.domain.records import Record
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

M = TypeVar("M", bound=BaseModel)


_PROBLEMS = 5


class _Loader(yaml.SafeLoader):
    """YAML as usual, but a key that comes twice is an error, not a silent choice of one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as in the library
        keys = [key.value for key, _ in node.value]
        doubles = sorted({key for key in keys if keys.count(key) > 1})
        if doubles:
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(doubles)} comes more than once", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


class FileError(ValueError):
    """A file cannot be used; the message says where and why."""


def read_integrations(path: Path) -> list[Integration]:
    """Return the integrations of a YAML file: a list, or a mapping with `integrations`."""
    try:
        content = yaml.load(_text(path), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise FileError(f"{path} is no YAML: {error}") from error
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
        problems = "; ".join(_problem(e["loc"], e["msg"]) for e in error.errors()[:_PROBLEMS])
        if error.error_count() > _PROBLEMS:
            problems += f"; and {error.error_count() - _PROBLEMS} more"
        name = f" ({item['id']})" if isinstance(item, dict) and "id" in item else ""
        raise FileError(f"{where}{name}: {problems}") from error


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
    return integration


def _no_doubles(path: Path, ids: list[str]) -> None:
    doubles = sorted({i for i in ids if ids.count(i) > 1})
    if doubles:
        raise FileError(f"{path} names {', '.join(doubles)} more than once")


def _text(path: Path) -> str:
    return "".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} cannot be read: it is no text in UTF-8") from error
