"""How long the warm worker waits for what, as its environment says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "KVITT_WORKER_"


class Patience(BaseModel):
    """Seconds, each from the variable KVITT_WORKER_ and its name: KVITT_WORKER_GRACE."""

    model_config = ConfigDict(frozen=True)

    grace: PositiveFloat = 60
    """For runs to end by themselves when the worker is stopped. Less than the supervisor's own."""
    blocked_warn: PositiveFloat = 10
    """Until a flow that blocks all others is named in the log and in an event."""
    blocked_end: PositiveFloat = 60
    """Until the process ends itself for it. Less than a lease (120), so that no other one is lost
    to it unseen."""
    sign_of_life: PositiveFloat = 30
    """Between two signs of life of each run, and between two looks at other workers' runs."""

    @model_validator(mode="after")
    def _warns_before_it_ends(self) -> Self:
        if self.blocked_warn >= self.blocked_end:
            raise ValueError(
                f"{_PREFIX}BLOCKED_WARN ({self.blocked_warn:g}) must be less than "
                f"{_PREFIX}BLOCKED_END ({self.blocked_end:g})"
            )
        return self

    @property
    def stray(self) -> float:
        """How long a run may give no sign of life before its worker is taken to be gone."""
        return 3 * self.sign_of_life

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read it; ValidationError where something is no positive number."""
        given = {name: environment.get(_PREFIX + name.upper()) for name in cls.model_fields}
        return cls.model_validate({name: text for name, text in given.items() if text})
