"""Chunks: how a batch is cut into what goes to a vendor in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvitt.domain.vouchers import Voucher


def cut(vouchers: Iterable[Voucher], *, most: int, lines: int) -> Iterator[list[Voucher]]:
    """Cut vouchers into chunks: in order, as many as fit both limits, one at least.

    A voucher is never cut: one of more lines than `lines` is a chunk by itself.
    """
    chunk: list[Voucher] = []
    room = lines
    for voucher in vouchers:
        if chunk and (len(chunk) == most or len(voucher.lines) > room):
            yield chunk
            chunk, room = [], lines
        chunk.append(voucher)
        room -= len(voucher.lines)
    if chunk:
        yield chunk
