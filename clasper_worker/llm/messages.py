"""What the turn says to a model and hears back, independent of any provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; ``arguments`` is JSON text as it wrote it, maybe invalid.

    ``extra`` is what else the provider's message says of it, and goes back with it: a signature of
    the thoughts that led to the call, for one.
    """

    id: str
    name: str
    arguments: str = field(repr=False)
    extra: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of the conversation, in the roles of the chat completions API.

    ``extra`` is a model's reply's, of which this is the message: see `ModelReply`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one model call as the provider counted them; ``cached`` is part of ``prompt``.

    Where the provider did not give all the counts, ``is_complete`` is false, and what is missing 0.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    is_complete: bool = True

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.is_complete and other.is_complete,
        )


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it; ``parameters`` is a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One answer of a model: text, tool calls, or both; ``model`` is the name that it gave.

    ``extra`` holds the fields of its message that mean nothing to us, and ``content`` where that is
    more than the text. Within the turn they go back to the provider unchanged, since some refuse a
    conversation whose signed thoughts are missing.
    """

    text: str = field(repr=False)
    tool_calls: tuple[ToolCall, ...]
    usage: TokenUsage
    provider: str
    model: str
    finish_reason: str | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)


ToolChoice = Literal["auto", "none"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is to be made; what is None is left to the operator or the provider.

    Attributes:
        max_tokens: cap on the reply, within the operator's.
        temperature: from 0 to 2.
        schema: a JSON Schema that the reply is to fit; a provider may not hold itself to it.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    schema: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)


NO_OPTIONS = CallOptions()


Confirm = Callable[[], Awaitable[None]]
"""Makes sure that the turn is still this run's; raises LeaseLostError where it is not."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text of the reply as the model wrote it: thoughts and controls are not taken out yet."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """Thoughts that the provider sends apart from the text; never part of a response."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CallBegun:
    """The reply calls a tool; its arguments are known once the reply is whole."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class UsageCounted:
    """The tokens of the call, as the provider counted them."""

    usage: TokenUsage


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply is whole."""

    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Restarted:
    """All that came before is void: the model, or another one, is asked again."""


ModelEvent = TextPart | ReasoningPart | CallBegun | UsageCounted | ReplyEnded | Restarted

Listen = Callable[[ModelEvent], None]
"""Is given each event of an answer in order, on the event loop; must not block."""


class ChatModel(Protocol):
    """A language model that can be asked for the next message."""

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
        confirm: Confirm | None = None,
        listen: Listen | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> ModelReply:
        """Ask for the next message; with ``tool_choice="none"`` it must be text.

        ``confirm`` is called right before each try; what it raises ends the call. With ``listen``
        the model is asked to answer bit by bit, and what comes is given to it; the reply is the
        same, and follows from what came since the last `Restarted`.

        Raises:
            ModelError: no usable answer came; its subclass says who has to act.
        """
        ...
