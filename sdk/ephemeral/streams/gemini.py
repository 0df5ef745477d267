"""Google's Gemini, on its own API and on Vertex AI: a request into a turn, its answer into events.

Names come in camelCase and, from some clients, in snake_case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import unquote

from ephemeral.streams.answer import AnswerReader, Call
from ephemeral.streams.turn import Event, Message, Turn, joined, mark_of, mark_of_call, objects, string

_MODEL_IN_PATH = re.compile(r".*/([^/:]+):\w+")
_KEY_IN_PATH = re.compile(r"""\[(?:'([^']*)'|"([^"]*)")\]""")
_TOP_LEVEL = re.compile(r"\$\.([^.\[\]]+)")

_CODE_TOOL = "code_execution"
"""What the provider's own execution of code is called in events."""

_NUMBERED = ("", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION")  # some clients ask for enums as numbers
_FINISHES = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION",
            "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}  # fmt: skip
"""Chat Completions' words for why an answer ended."""


def turn(body: dict[str, Any], path: str = "") -> Turn:
    """What a request says; its model stands in ``path``."""
    found = _MODEL_IN_PATH.fullmatch(path.partition("?")[0])
    return Turn(string(unquote(found[1])) if found else "", tuple(_tools(body)), tuple(_messages(body)))


def _tools(body: dict[str, Any]) -> Iterator[str]:
    for tool in objects(body.get("tools")):
        for declared in objects(_either(tool, "functionDeclarations", "function_declarations")):
            if name := string(declared.get("name")):
                yield name
        if _either(tool, "codeExecution", "code_execution") is not None:
            yield _CODE_TOOL


def _messages(body: dict[str, Any]) -> Iterator[Message]:
    system = _text_of(_parts(_either(body, "systemInstruction", "system_instruction")))
    if system:
        yield Message("system", system)
    # The official client keeps a streamed answer as it came, in many contents: those that follow each other are one.
    for of_model, contents in groupby(_some(body.get("contents")), lambda content: content.get("role") == "model"):
        if of_model:
            yield Message("assistant", marks=tuple(_marks([part for said in contents for part in _parts(said)])))
            continue
        for content in contents:
            yield from _user(_parts(content))


def _user(parts: list[dict[str, Any]]) -> Iterator[Message]:
    """The functions' results, and what the user says beside them."""
    results = [
        found for part in parts if isinstance(found := _either(part, "functionResponse", "function_response"), dict)
    ]
    for result in results:
        yield Message("tool", _result(result.get("response")), string(result.get("id")) or string(result.get("name")))
    text = _text_of(parts)
    if text or not results:
        yield Message("user", text)


def _result(response: object) -> str:
    """What a function returned, for reading: usually an object of one string (``output``, ``result`` or ``error``)."""
    values = response.values() if isinstance(response, dict) else [response]
    return joined(value if isinstance(value, str) else json.dumps(value) for value in values if value is not None)


def _text_of(parts: list[dict[str, Any]]) -> str:
    """The text of what the user says. Files count by their name."""
    pieces = []
    for part in parts:
        file = _either(part, "fileData", "file_data", "inlineData", "inline_data")
        pieces.append(string(part.get("text")) or (_name_of(file) if isinstance(file, dict) else ""))
    return joined(pieces)


def _name_of(file: dict[str, Any]) -> str:
    at = string(_either(file, "fileUri", "file_uri")).rpartition("/")[2]
    return string(_either(file, "displayName", "display_name")) or (at if "." in at else "")


def _marks(parts: list[dict[str, Any]]) -> Iterator[str]:
    """Of what the model said: the same as ``Answer`` finds in the same parts."""
    said = []
    called: _FunctionCall | None = None
    for part in parts:
        function = _either(part, "functionCall", "function_call")
        code = _either(part, "executableCode", "executable_code")
        if isinstance(function, dict):
            if called is None or called.whole or not called.goes_on_with(function):
                called = _FunctionCall(function)
            called.add(function)
            if called.whole and called.name:
                yield from filter(None, (called.id, called.mark()))
        elif isinstance(code, dict):
            yield from filter(None, (string(code.get("id")), mark_of_call(_CODE_TOOL, code.get("code"))))
        elif not part.get("thought"):
            said.append(string(part.get("text")))
    text = "".join(said)
    if text.strip():
        yield mark_of(text)


class Answer(AnswerReader):
    """``streamed``: as server-sent events; else as a JSON array that streams, or as one document of the same shape."""

    def __init__(self, streamed: bool) -> None:
        super().__init__("sse" if streamed else "array")
        self._coming: dict[object, _Coming] = {}  # by candidate
        self._functions_called = False

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        if message.get("error"):
            yield from self._end("error")
            return
        self._identify(_either(message, "responseId", "response_id"))
        blocked = _either(message, "promptFeedback", "prompt_feedback")
        if blocked and _either(blocked, "blockReason", "block_reason"):
            self._finish = "content_filter"
        for candidate in message.get("candidates") or ():
            number = candidate.get("index") or 0
            for part in _parts(candidate.get("content")):
                yield from self._part(number, part)
            if number == 0:
                self._stopped(_either(candidate, "finishReason", "finish_reason"))

    def _part(self, candidate: object, part: dict[str, Any]) -> Iterator[Event]:
        function = _either(part, "functionCall", "function_call")
        code = _either(part, "executableCode", "executable_code")
        if function is not None:
            yield from self._called(candidate, function)
        elif code is not None:
            text = code.get("code")
            call = self._call(len(self.calls), code.get("id"), mark_of_call(_CODE_TOOL, text))
            if call is not None:
                yield from call.start(_CODE_TOOL)
                yield from call.raw(string(text))
                yield from call.close()
        elif candidate == 0:  # alternative answers would only garble the first one's text
            yield from self._say("reasoning_text" if part.get("thought") else "assistant_text", part.get("text"))

    def _called(self, candidate: object, piece: dict[str, Any]) -> Iterator[Event]:
        coming = self._coming.get(candidate)
        if coming is None or not coming.function.goes_on_with(piece):
            function = _FunctionCall(piece)
            if not function.name:
                return  # only the end of a call that is over already
            call = self._call(len(self.calls), function.id)
            if call is None:
                return
            self._functions_called = True
            coming = self._coming[candidate] = _Coming(function, call, _JsonText())
            yield from call.start(function.name)
        coming.function.add(piece)
        if piece.get("args"):
            yield from coming.call.given(piece["args"])
        for partial in _partials(piece):
            yield from coming.call.arguments(coming.text.add(partial))
        if coming.function.whole:
            del self._coming[candidate]
            self._recognise(coming.function.mark())
            yield from coming.call.arguments(coming.text.end())
            yield from coming.call.close()

    def _stopped(self, reason: object) -> None:
        if isinstance(reason, int) and 0 <= reason < len(_NUMBERED):
            reason = _NUMBERED[reason]
        if said := string(reason):
            finish = _FINISHES.get(said, said.lower())
            self._finish = "tool_calls" if finish == "stop" and self._functions_called else finish


@dataclass(frozen=True, slots=True)
class _Coming:
    """A call whose pieces are coming."""

    function: _FunctionCall
    call: Call
    text: _JsonText


class _FunctionCall:
    """A function call: whole, or (on Vertex AI, for apps that ask for it) piece by piece.

    Pieces after the first say only what is new: ``partialArgs``, each with the JSON path of an argument and the next part of
    its value. ``whole`` is true once a piece announces no other.
    """

    _LIMIT = 1 << 20

    def __init__(self, piece: dict[str, Any]) -> None:
        self.name = string(piece.get("name"))
        self.id = string(piece.get("id"))
        self.whole = False
        self._values: dict[str, Any] = {}  # by path; texts as the list of their pieces
        self._length = 0

    def goes_on_with(self, piece: dict[str, Any]) -> bool:
        return string(piece.get("name")) in ("", self.name) and string(piece.get("id")) in ("", self.id)

    def add(self, piece: dict[str, Any]) -> None:
        self.whole = not _either(piece, "willContinue", "will_continue")
        self._values.update(_flat(piece.get("args")))
        for partial in _partials(piece):
            path, text = _path_of(partial), _text_in(partial)
            self._length += len(path) + len(text or "") + 1
            if self._length > self._LIMIT:
                self._values.clear()
            elif text is None:
                self._values[path] = _either(partial, "numberValue", "number_value", "boolValue", "bool_value")
            elif isinstance(self._values.get(path), list):
                self._values[path].append(text)
            else:
                self._values[path] = [text]

    def mark(self) -> str:
        """``turn.mark_of_call``; empty where there was too much to remember."""
        if self._length > self._LIMIT:
            return ""
        plain = {path: "".join(value) if isinstance(value, list) else value for path, value in self._values.items()}
        return mark_of_call(self.name, plain)


class _JsonText:
    """The texts among a call's partial arguments as the JSON text that ``Call.arguments`` reads."""

    def __init__(self) -> None:
        self._path = ""  # of the string that is open
        self._begun = False

    def add(self, partial: dict[str, Any]) -> str:
        path, text = _path_of(partial), _text_in(partial)
        adds = ""
        if path != self._path:
            adds = self.end()
            key = _TOP_LEVEL.fullmatch(path)
            if key is None or text is None:
                return adds
            adds += ("," if self._begun else "{") + json.dumps(key[1]) + ':"'
            self._path = path
            self._begun = True
        return adds + json.dumps(text or "")[1:-1]

    def end(self) -> str:
        """Ends the open string. A partial argument may say that it is the last one of its path, but not all servers do."""
        ends = '"' if self._path else ""
        self._path = ""
        return ends


def _partials(piece: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(_either(piece, "partialArgs", "partial_args"))


def _path_of(partial: dict[str, Any]) -> str:
    """``$['a']['b']`` and ``$.a.b`` are the same path."""
    path = string(_either(partial, "jsonPath", "json_path"))
    return _KEY_IN_PATH.sub(lambda found: "." + (found[1] or found[2] or ""), path)


def _text_in(partial: dict[str, Any]) -> str | None:
    text = _either(partial, "stringValue", "string_value")
    return text if isinstance(text, str) else None


def _flat(arguments: object) -> dict[str, Any]:
    """The single values of a call's arguments by their JSON paths: what pieces can be compared with."""
    flat = {}
    waiting: list[tuple[str, object]] = [("$", arguments or {})]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        else:
            flat[path] = value
    return flat


# ----------------------------------------------------------------------------------------- reading a stranger's JSON


def _either(value: dict[str, Any], *names: str) -> Any:
    """The first of these fields that says something."""
    return next((value[name] for name in names if value.get(name) is not None), None)


def _some(value: object) -> list[dict[str, Any]]:
    """The objects of a list, or the one that stands in its place."""
    return [value] if isinstance(value, dict) else objects(value)


def _parts(content: object) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return _some(content.get("parts")) if isinstance(content, dict) else []
