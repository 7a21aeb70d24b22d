"""The tool calls of a streamed reply, put together from pieces as servers send them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})
_NAME_CHARS = 256  # no tool has so long a name


class StreamedCalls:
    """Collects the calls of one reply.

    The API gives the first piece of a call its index, id and name, and the others the index. Some
    servers leave out the index, or give all calls the same; some leave out ids, or make up one a
    piece; some repeat the name in each piece, some send calls whole. So a piece that has a name
    begins another call where its id is another, or where the call before is whole.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[object, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def are_whole(self) -> bool:
        """Whether the arguments of each are JSON, or nothing."""
        return all(call.has_json for call in self._calls)

    def add(self, piece: Mapping[str, Any]) -> tuple[str | None, int | None]:
        """Take a piece of a call.

        Returns:
            The call's name where it begins one, and how many characters of arguments came: None
            where they are no text.
        """
        function = piece.get("function")
        if not isinstance(function, Mapping):
            function = piece  # some leave out the level in between
        name = function.get("name")
        name = name if isinstance(name, str) else ""
        index, identifier = piece.get("index"), piece.get("id")
        call = self._begun(index, identifier, name)
        begins = call is None
        if call is None:
            call = _Call(index if isinstance(index, int) else None)
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        if identifier and not call.id:
            call.id = identifier
            self._by_id[identifier] = call
        said = call.take(piece, function, name)
        return name if begins else None, said

    def message(self) -> list[dict[str, Any]]:
        """The calls as a whole message has them."""
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.message() for call in calls]

    def _begun(self, index: object, identifier: object, name: str) -> _Call | None:
        """The call that a piece belongs to; None where it begins another."""
        last = self._calls[-1] if self._calls else None
        if isinstance(index, int):
            call = self._by_index.get(index)
        elif identifier and name:
            call = self._by_id.get(identifier)
        else:
            call = self._by_id.get(identifier, last) if identifier else last
        return None if call is None or call.is_over(identifier, name) else call


class _Call:
    """One call, as far as it has come."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id: object = None
        self._name = ""
        self._arguments: list[str] = []
        self._object: object = None
        self._extra: dict[str, Any] = {}
        self._came_whole: bool | None = None

    @property
    def has_json(self) -> bool:
        return self._object is not None or _is_json("".join(self._arguments).strip() or "{}")

    def is_over(self, identifier: object, name: str) -> bool:
        """Whether a piece with this id and name is another call's."""
        if not name or not self._name:
            return False
        if identifier and self.id:
            return identifier != self.id
        if self._object is not None or (self._arguments and name != self._name):
            return True
        if self._came_whole is None:
            self._came_whole = len(self._arguments) == 1 and _is_json(self._arguments[0])
        return self._came_whole

    def take(self, piece: Mapping[str, Any], function: Mapping[str, Any], name: str) -> int | None:
        """Add a piece; returns as `StreamedCalls.add` how much came."""
        if name != self._name and len(self._name) < _NAME_CHARS:
            self._name += name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            if arguments:
                self._arguments.append(arguments)
                self._came_whole = None if len(self._arguments) == 1 else False
        elif arguments is not None:
            self._object = arguments
        known = _CALL_FIELDS | _FUNCTION_FIELDS if function is piece else _CALL_FIELDS
        if piece.keys() - known:
            more = {key: piece[key] for key in piece.keys() - known if piece[key] is not None}
            self._extra.update(more)
        if function is not piece and function.keys() - _FUNCTION_FIELDS:
            own = self._extra.setdefault("function", {})
            own.update({key: function[key] for key in function.keys() - _FUNCTION_FIELDS})
        return len(arguments or "") if arguments is None or isinstance(arguments, str) else None

    def message(self) -> dict[str, Any]:
        arguments = self._object if self._object is not None else "".join(self._arguments)
        own = dict(self._extra)
        function = {"name": self._name, "arguments": arguments, **own.pop("function", {})}
        return {"id": self.id, "type": "function", "function": function, **own}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
