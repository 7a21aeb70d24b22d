"""A check is one function: `@check(name, …)` above it registers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clasper_worker.conformance.probe import Probe

_Run = Callable[["Probe"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract.

    Attributes:
        name: ``section.promise``.
        wants: what the contract promises, in a sentence.
        why: what goes wrong with agents where the promise is broken.
        feature: the capability that it is for; None where it is required of all.
        run: tries it; raises `CheckFailed` or `CheckSkipped`.
    """

    name: str
    wants: str
    why: str
    feature: str | None
    run: _Run

    @property
    def section(self) -> str:
        """The part of the contract that it belongs to."""
        return self.name.partition(".")[0]


class CheckFailed(Exception):  # noqa: N818 - an outcome
    """The backend did something else: the text says what came."""


class CheckSkipped(Exception):  # noqa: N818 - an outcome
    """It cannot be tried here: the text says what to set."""


CHECKS: dict[str, Check] = {}


def check(name: str, *, wants: str, why: str, feature: str | None = None) -> Callable[[_Run], _Run]:
    """Register the function below as a check."""

    def register(run: _Run) -> _Run:
        if name in CHECKS:
            raise ValueError(f"there is a check named {name} already")
        CHECKS[name] = Check(name, wants, why, feature, run)
        return run

    return register
