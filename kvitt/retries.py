"""What is said of a call that is made again. Stamina's own line names neither it nor the reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stamina import instrumentation

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

_logger = logging.getLogger("kvitt")


def _log(details: RetryDetails) -> None:
    _logger.warning("%s. Trying again in %.1f s", details.caused_by, details.wait_for)


def explain_retries() -> None:
    """Have each retry logged under `kvitt`, with what happened and when the next try is."""
    instrumentation.set_on_retry_hooks([_log])
