"""What the environment says about how long the worker waits."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from workers.patience import Patience


def test_an_empty_environment_gives_the_defaults_of_the_docs() -> None:
    patience = Patience.of({})
    assert (patience.grace, patience.blocked_warn, patience.blocked_end) == (60, 10, 60)
    assert patience.stray == 3 * patience.sign_of_life == 90


def test_each_variable_is_read() -> None:
    patience = Patience.of(
        {
            "KVITT_WORKER_GRACE": "5",
            "KVITT_WORKER_BLOCKED_WARN": "0.5",
            "KVITT_WORKER_BLOCKED_END": "2",
            "KVITT_WORKER_SIGN_OF_LIFE": "1",
        }
    )
    assert patience == Patience(grace=5, blocked_warn=0.5, blocked_end=2, sign_of_life=1)


@pytest.mark.parametrize("text", ["soon", "0", "-1"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Patience.of({"KVITT_WORKER_GRACE": text})


def test_a_warning_that_comes_after_the_end_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match=r"KVITT_WORKER_BLOCKED_WARN .* must be less"):
        Patience.of({"KVITT_WORKER_BLOCKED_WARN": "90"})
