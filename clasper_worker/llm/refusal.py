"""What a provider's refusal says, whatever words and form it says it in.

Its text is read here and goes no further: it may quote the prompt. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_TEXT_CHARS = 4_000
_MAX_DEPTH = 6
_SHOWN = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")

_TOO_LONG_STATUSES = frozenset({400, 413, 422})
_TOO_LONG = (
    "context_length",
    "context length",
    "context window",
    "context_window",
    "context size",
    "context_size",
    "maximum prompt length",
    "maximum input length",
    "maximum number of tokens",
    "max_prompt_tokens",
    "prompt is too long",
    "input is too long",
    "input length",
    "input token count",
    "too many tokens",
    "too many input tokens",
    "reduce the length",
    "reduce your prompt",
    "token limit",
    "exceeds the limit of",
    "request_too_large",
)
_NO_MODEL_CODES = frozenset(
    {
        "model_not_found",
        "invalid_model",
        "unknown_model",
        "unsupported_model",
        "model_not_supported",
        "model_not_available",
        "model_decommissioned",
        "deploymentnotfound",
    }
)
_NO_MODEL = (
    "does not exist",
    "not found",
    "not a valid model",
    "unknown model",
    "no such model",
    "invalid model",
    "decommissioned",
    "model is not available",
)
_REFUSING = (
    "unsupported",
    "support",
    "unrecognized",
    "unknown",
    "unexpected",
    "extra",
    "not permitted",
    "not allowed",
    "not enabled",
    "not accepted",
    "disallowed",
    "deprecated",
    "removed",
    "no longer",
    "cannot find",
    "only the default",
    "invalid",
    "not valid",
    "must be",
    "cannot be",
    "too large",
    "too small",
    "at most",
    "expected",
)
_LEAST_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 4xx, as far as it tells what is wrong with the request.

    Attributes:
        status: of HTTP.
        code: the provider's name for it, where it is fit to be shown.
        parameter: the parameter that it names, where it is fit to be shown.
        text: all that it says, in lower case.
        numbers: those in it, the smallest first.
    """

    status: int
    code: str | None
    parameter: str | None
    text: str = field(repr=False)
    numbers: tuple[int, ...]

    @property
    def is_too_long(self) -> bool:
        """Whether the conversation is longer than the model takes."""
        if self.status == 413:
            return True
        return self.status in _TOO_LONG_STATUSES and any(word in self.text for word in _TOO_LONG)

    @property
    def is_unknown_model(self) -> bool:
        """Whether the provider has no such model."""
        if self.status == 404 or (self.code or "").lower() in _NO_MODEL_CODES:
            return True
        return (
            self.status in {400, 403, 422}
            and "model" in self.text
            and any(word in self.text for word in _NO_MODEL)
        )

    @property
    def limit(self) -> int | None:
        """How many tokens the model takes, where that can be told from the numbers."""
        fit = [number for number in self.numbers if number >= _LEAST_LIMIT]
        return (fit[-2] if len(fit) > 1 else fit[0]) if fit else None

    @property
    def requested(self) -> int | None:
        """How many tokens the conversation has; the greatest number, where there is another."""
        fit = [number for number in self.numbers if number >= _LEAST_LIMIT]
        return fit[-1] if len(fit) > 1 else None

    def blames(self, name: str) -> bool:
        """Whether a field of this name is what it refuses."""
        if not any(word in self.text for word in _REFUSING):
            return False
        own = self.parameter
        if own is not None and own.replace("]", "").replace("[", ".").split(".")[-1] == name:
            return True
        camel = "".join(part.title() if index else part for index, part in enumerate(
            name.split("_")))  # fmt: skip
        words = self._words()
        return name in words or camel.lower() in words

    def _words(self) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", self.text))


def read_refusal(status: int, body: object) -> Refusal:
    """Read the body of a refusal; it may be of any form, or none."""
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    fields: Mapping[str, object] = body if isinstance(body, Mapping) else {}
    texts: list[str] = []
    numbers: set[int] = set()
    left = _TEXT_CHARS
    for leaf in _leaves(body, 0):
        if isinstance(leaf, int):
            numbers.add(leaf)
            continue
        texts.append(leaf[:left].lower())
        left -= len(texts[-1])
        if left <= 0:
            break
    text = " ".join(texts)
    numbers |= {int(found) for found in re.findall(r"\d+", text.replace(",", "")) if len(found) < 9}
    codes = (fields.get("code"), fields.get("type"), fields.get("status"))
    return Refusal(
        status,
        next((shown for code in codes if (shown := _shown(code))), None),
        _shown(fields.get("param")),
        text,
        tuple(sorted(number for number in numbers if number != status)),
    )


def _shown(value: object) -> str | None:
    text = str(value) if isinstance(value, int) else value
    return text if isinstance(text, str) and _SHOWN.fullmatch(text) else None


def _leaves(value: object, depth: int) -> Iterator[str | int]:
    """The texts and numbers in a value; a text that is JSON itself, as what it says."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        if value.startswith("{") and len(value) <= _TEXT_CHARS:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                yield str(value)
                return
            yield from _leaves(value, depth + 1)
            return
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, depth + 1)
