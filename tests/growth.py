"""How the time of a function grows with the size of its input, measured so that load does not tell.

Time, not steps: `re` counts none. A linear function takes eight times as long for eight times the
text, a quadratic one sixty-four times; the line between them is drawn at twenty-four. Sizes rise
until the time can be told from noise, so that what grows fast, exponentially even, is found early.
"""

from collections.abc import Callable
from time import thread_time

TIMES = 8
ALLOWED = 24.0
_ENOUGH_SECONDS = 0.004
_SIZES = (2, 3, 16, 128, 512, 2048)
LARGEST = _SIZES[-1]
_TRIES = 4


def growth(
    run: Callable[[str], object], make: Callable[[int], str], largest: int = LARGEST
) -> float:
    """By what the time grows where the text does by `TIMES`; 0 where it is too short to tell."""
    for size in (size for size in _SIZES if size <= largest):
        text = make(size * TIMES)
        seconds = _seconds(run, text)
        if seconds >= _ENOUGH_SECONDS:
            return _ratio(run, make(size), text, seconds)
    return 0.0


def is_linear(
    run: Callable[[str], object], make: Callable[[int], str], largest: int = LARGEST
) -> bool:
    """Whether the time grows about as the text does, of up to `largest` repetitions.

    Of `LARGEST` a step of 0.05 ns is told where the number of steps is quadratic.
    """
    return growth(run, make, largest) < ALLOWED


def _ratio(run: Callable[[str], object], small: str, large: str, seconds: float) -> float:
    """The least of some measurements, the first of which is known; no more are made than needed."""
    least = seconds / max(_seconds(run, small), 1e-7)
    for _ in range(_TRIES - 1):
        if least < ALLOWED:
            break
        least = min(least, _seconds(run, large) / max(_seconds(run, small), 1e-7))
    return least


def _seconds(run: Callable[[str], object], text: str) -> float:
    began = thread_time()
    run(text)
    return thread_time() - began
