"""How many records an Edge Function takes at once: fewer once they were too many for its memory.

Halved when a page was too much, and grown again step by step while full pages go well. A size that
was too much is not tried again before many pages have gone well just below it: one that never fits
costs one call in `_GOOD_AT_THE_EDGE` pages, not one a period.
"""

from __future__ import annotations

from dataclasses import dataclass

HOSTED_MEMORY_MB = 256
"""What a hosted Edge Function may use (contracts: hosted limits); page sizes are meant for it."""

_GOOD = 4
_GOOD_AT_THE_EDGE = 64
_STEPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSize:
    """How many `records` to ask for. `good` full pages in a row went well with that many.

    `too_much`: the smallest size that was too much, until one of that size goes well.
    """

    records: int
    good: int = 0
    too_much: int | None = None

    def within(self, most: int) -> PageSize:
        """Return it, with `most` records at most."""
        return self if self.records <= most else PageSize(records=most, too_much=self.too_much)

    def after_too_much(self) -> PageSize:
        """Return what to try after a page that ran out of memory, or of CPU time: half of it."""
        smallest = min(self.records, self.too_much or self.records)
        return PageSize(records=max(1, self.records // 2), too_much=smallest)

    def after_full_page(self, *, most: int) -> PageSize:
        """Return what to ask for after a full page that went well; never more than `most`.

        A page that is not full says nothing: it is the last one of its batch.
        """
        if self.records >= most:
            return PageSize(records=most, too_much=self._still_too_much())
        good = self.good + 1
        larger = min(most, self.records + max(1, min(most // _STEPS, self.records // 2)))
        too_much = self._still_too_much()
        at_the_edge = too_much is not None and larger >= too_much
        if good < (_GOOD_AT_THE_EDGE if at_the_edge else _GOOD):
            return PageSize(records=self.records, good=good, too_much=too_much)
        return PageSize(records=larger, too_much=too_much)

    def _still_too_much(self) -> int | None:
        if self.too_much is None or self.records >= self.too_much:
            return None
        return self.too_much


def first_page(*, most: int, memory_mb: int) -> PageSize:
    """Return what to ask for while nothing is known: less than `most` where there is less memory.

    `most` is meant for the memory of a hosted function; more memory than that makes no larger page.
    """
    return PageSize(records=max(1, min(most, most * memory_mb // HOSTED_MEMORY_MB)))
