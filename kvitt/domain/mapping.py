"""The mapping: how the app's words become the accounting system's, as finance people declare it.

Its fields are described in docs/integrations.md. What contradicts itself is refused when it is
saved, at the field; what only the vendor knows to be wrong, its registry entry says
(`kvitt.vendors.Kind.mapping_objections`).
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from kvitt.domain.fields import Code, NonEmpty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Mapping as Table

    from kvitt.domain.records import TakenLine

# -- texts -----------------------------------------------------------------------------------------

PLACEHOLDERS = (
    "text",  # the voucher's
    "line_text",  # the line's own; the voucher's, where it has none
    "kind",
    "record",
    "party",  # the line's, in the app's word; the voucher's only one, where the line has none
    "voucher_date",
    "period",  # the day on which it is due
    "amount",  # the line's, in the currency of the voucher
    "currency",
)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _check_template(template: str) -> str:
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in PLACEHOLDERS]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"there is no placeholder {{{unknown[0]}}}; there are {known}")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
        raise ValueError("a brace stands alone: write placeholders like {text}")
    return template


Template = Annotated[NonEmpty, AfterValidator(_check_template)]


LINE_TEXT = "{line_text}"
"""The template that says nothing more than the line itself."""


def filled(template: str, words: Table[str, str]) -> str:
    """Fill a template in, on one line, as in a ledger: a claim's text may have line breaks."""
    return on_one_line(_PLACEHOLDER.sub(lambda found: words[found[1]], template))


def on_one_line(text: str) -> str:
    """Return a text without line breaks, and without more than one space between its words."""
    return " ".join(text.split())


# -- the declaration -------------------------------------------------------------------------------


class Part(BaseModel):
    """A part of the settings: frozen, and strict about names.

    A misspelt setting is an error, not a silence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


WordList = Literal["accounts", "parties", "taxes", "dimensions", "values"]


class AccountDefaults(Part):
    """What lines on one account get where they say nothing. A dimension of null: none at all."""

    tax: Code | None = None
    dimensions: dict[Code, Code | None] = {}


class Defaults(Part):
    """What lines get where they say nothing, in the app's own words, which are then translated.

    `dimensions` for all lines; `accounts` for those on one account, and before the former.
    """

    dimensions: dict[Code, Code] = {}
    accounts: dict[Code, AccountDefaults] = {}


class Rounding(Part):
    """Where the difference goes when amounts that are finer than the books are rounded."""

    account: Code
    text: NonEmpty | None = None


class Mapping(Part):
    """How the app's words become the accounting system's. A word that is not listed stays itself.

    `dimensions` names the vendor's dimension (Business Central: its code; Xledger: the slot, like
    glObject1, or project; Dataverse: the column) for each dimension of the app, `values` has a list
    of values for each of them. A word that is missing in a list that `strict` names sets its
    voucher aside.
    `posting_date` and `document_date` are the voucher's own date, or the day on which the period is
    due in the integration's time zone. Vouchers of `closed_until` or before are posted on that day
    in any case. `rounding` is the one rule that is applied when records are added.
    """

    accounts: dict[Code, Code] = {}
    parties: dict[Code, Code] = {}
    taxes: dict[Code, Code] = {}
    dimensions: dict[Code, Code] = {}
    values: dict[Code, dict[Code, Code]] = {}
    strict: tuple[WordList, ...] = ()
    defaults: Defaults = Field(default_factory=Defaults)
    text: Template = LINE_TEXT
    comment: Template | None = None
    posting_date: Literal["voucher", "period"] = "voucher"
    closed_until: date | None = None
    document_date: Literal["voucher", "period"] = "voucher"
    rounding: Rounding | None = None
    source: str | None = Field(default=None, max_length=20)

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        found = list(_contradictions(self))
        if found:
            raise ValidationError.from_exception_data("Mapping", [_at(*each) for each in found])
        return self

    def posted_on(self, voucher_date: date, period_day: date) -> date:
        """Return on which day a voucher is posted."""
        closed = self.closed_until is not None and voucher_date <= self.closed_until
        return period_day if closed or self.posting_date == "period" else voucher_date


Path = tuple[str, ...]


def _at(place: Path, words: str) -> InitErrorDetails:
    error = PydanticCustomError("contradiction", "{words}", {"words": words})
    return InitErrorDetails(type=error, loc=place, input=None)


def _contradictions(mapping: Mapping) -> Iterator[tuple[Path, str]]:
    """Yield what cannot be meant, and where it stands."""
    for name, other in _doubles(mapping.dimensions):
        yield ("dimensions", name), f"{other} becomes {mapping.dimensions[name]} already"
    if mapping.closed_until and mapping.posting_date == "period":
        yield ("closed_until",), "with posting_date: period, all is posted on the period's day"
    for words in mapping.strict:
        if not getattr(mapping, words):
            yield ("strict",), f"{words} lists nothing, so that every such word would be refused"
    for words, word, place in _said_by(mapping):
        if words in mapping.strict and word not in getattr(mapping, words):
            yield place, f"{word} is not listed in {words}, which is strict"
    for name, value, place in _values_said_by(mapping):
        if "values" in mapping.strict and value not in mapping.values.get(name, {value: value}):
            yield place, f"{value} is not listed in values.{name}, which is strict"


def _doubles(words: Table[str, str]) -> Iterator[tuple[str, str]]:
    """Yield words that become the same as another one, and that one."""
    seen: dict[str, str] = {}
    for word, becomes in words.items():
        first = seen.setdefault(becomes.casefold(), word)
        if first != word:
            yield word, first


def _said_by(mapping: Mapping) -> Iterator[tuple[WordList, str, Path]]:
    """Yield the words that the mapping itself says in the app's place."""
    if mapping.rounding:
        yield "accounts", mapping.rounding.account, ("rounding", "account")
    for name in mapping.values:
        yield "dimensions", name, ("values", name)
    for name in mapping.defaults.dimensions:
        yield "dimensions", name, ("defaults", "dimensions", name)
    for account, given in mapping.defaults.accounts.items():
        place = ("defaults", "accounts", account)
        yield "accounts", account, place
        if given.tax:
            yield "taxes", given.tax, (*place, "tax")
        for name in given.dimensions:
            yield "dimensions", name, (*place, "dimensions", name)


def _values_said_by(mapping: Mapping) -> Iterator[tuple[str, str, Path]]:
    for name, value in mapping.defaults.dimensions.items():
        yield name, value, ("defaults", "dimensions", name)
    for account, given in mapping.defaults.accounts.items():
        for name, value in given.dimensions.items():
            if value is not None:
                yield name, value, ("defaults", "accounts", account, "dimensions", name)


def codes_of(mapping: Mapping) -> Iterator[tuple[Path, str]]:
    """Yield each code that the mapping gives to the accounting system, and where it stands."""
    for words in ("accounts", "parties", "taxes"):
        for word, becomes in getattr(mapping, words).items():
            yield (words, word), becomes
    for name, values in mapping.values.items():
        for value, becomes in values.items():
            yield ("values", name, value), becomes
    for words, word, place in _said_by(mapping):
        if words in ("accounts", "taxes") and word not in getattr(mapping, words):
            yield place, word
    for name, value, place in _values_said_by(mapping):
        if value not in mapping.values.get(name, {}):
            yield place, value


def dimensions_of(mapping: Mapping) -> Iterator[tuple[Path, str]]:
    """Yield each dimension of the accounting system that the mapping uses, and where it stands."""
    for name, becomes in mapping.dimensions.items():
        yield ("dimensions", name), becomes
    for words, word, place in _said_by(mapping):
        if words == "dimensions" and word not in mapping.dimensions:
            yield place, word


# -- the translation -------------------------------------------------------------------------------


class Word(NamedTuple):
    """What became of one word. `said` is the app's; `assumed`: it said nothing, so a default's.

    `listed`: the list `of` has it. `refused`: it does not, and is strict.
    """

    of: WordList
    said: str
    becomes: str
    assumed: bool
    listed: bool
    refused: bool


class Translation(NamedTuple):
    """The words of one line. `dimensions` are pairs of a name and a value."""

    account: Word
    party: Word | None
    tax: Word | None
    dimensions: tuple[tuple[Word, Word], ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """All of them."""
        some = (self.account, self.party, self.tax, *(w for pair in self.dimensions for w in pair))
        return tuple(word for word in some if word is not None)


_NONE = AccountDefaults()


def translate(line: TakenLine, mapping: Mapping) -> Translation:
    """Translate the words of a line."""
    usual = mapping.defaults.accounts.get(line.account, _NONE)
    tax = line.tax or usual.tax
    given = line.dimensions
    if assumed := {**mapping.defaults.dimensions, **usual.dimensions}:
        given = {**{k: v for k, v in assumed.items() if v is not None}, **given}
    return Translation(
        account=_word("accounts", line.account, mapping),
        party=None if line.party is None else _word("parties", line.party, mapping),
        tax=None if tax is None else _word("taxes", tax, mapping, assumed=line.tax is None),
        dimensions=tuple(
            [
                _dimension(name, value, mapping, assumed=name not in line.dimensions)
                for name, value in given.items()
            ]
        ),
    )


def _word(of: WordList, said: str, mapping: Mapping, *, assumed: bool = False) -> Word:
    becomes = getattr(mapping, of).get(said)
    if becomes is not None:
        return Word(of, said, becomes, assumed, listed=True, refused=False)
    return Word(of, said, said, assumed, listed=False, refused=of in mapping.strict)


def _dimension(name: str, value: str, mapping: Mapping, *, assumed: bool) -> tuple[Word, Word]:
    """Translate a dimension. Without a list of its own, any of its values is as good as another."""
    values = mapping.values.get(name)
    listed = values is not None and value in values
    return _word("dimensions", name, mapping, assumed=assumed), Word(
        of="values",
        said=value,
        becomes=value if values is None else values.get(value, value),
        assumed=assumed,
        listed=listed,
        refused=values is not None and not listed and "values" in mapping.strict,
    )


_KINDS = {
    "accounts": "account",
    "parties": "party",
    "taxes": "tax code",
    "dimensions": "dimension",
}


def objection_to(lines: Iterable[Translation]) -> str | None:
    """Say why a voucher must not go as it was translated, in words that follow its name."""
    for line in lines:
        for word in line.words:
            if word.refused:
                return _refusal(word, line)
        names = {name.becomes: name.said for name, _ in line.dimensions}
        for name, _ in line.dimensions:
            if names[name.becomes] != name.said:
                return (
                    f"has both {name.said} and {names[name.becomes]} on a line on account "
                    f"{line.account.said}, and both become {name.becomes}: mend mapping.dimensions"
                )
    return None


def _refusal(word: Word, line: Translation) -> str:
    if word.of == "values":
        [name] = [name.said for name, value in line.dimensions if value is word]
        what, place = name, f"values.{name}"
    else:
        what, place = _KINDS[word.of], word.of
    return (
        f"has the {what} {word.said!r}, which mapping.{place} does not list, and it is strict: add "
        "it there, or correct the claim"
    )
