"""The code inside the half-finished JSON arguments of a tool call, as it grows."""

from __future__ import annotations

import re

CODE_KEYS = frozenset({"code", "python_code", "source", "script", "cell", "cell_source", "input", "command", "cmd", "file_text"})
"""Names under which tools take code. Only strings, only at the top level of the arguments."""

_OF_EDITORS = frozenset({"file_text", "new_str", "insert_text"})
_KEYS_OF_TOOL = {
    # Anthropic's editors: ``command`` says view, create, str_replace …
    "str_replace_based_edit_tool": _OF_EDITORS,
    "str_replace_editor": _OF_EDITORS,
    "text_editor_code_execution": _OF_EDITORS,
    "memory": frozenset[str](),  # … and its notes look like them, but are prose
}


def code_keys(tool: str) -> frozenset[str]:
    """Names under which ``tool`` takes code."""
    return _KEYS_OF_TOOL.get(tool, CODE_KEYS)


_PLAIN = re.compile(r'[^"\\]+')
_UNTIL_INTERESTING = re.compile(r'[^"{}\[\],:]+')
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_KEY_LIMIT = 256


class Surrogates:
    """Joins surrogate halves that were cut apart, so that what comes out can always be encoded as UTF-8.

    A high half at the end of a piece waits for the next piece; a half without its other half becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        if not self._high and (text.isascii() or not _SURROGATE.search(text)):
            return text
        text = self._high + text
        self._high = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def close(self) -> str:
        """What still waited: U+FFFD for a lonely half, else nothing."""
        lonely, self._high = self._high, ""
        return "\ufffd" if lonely else ""


class CodeArguments:
    """Reads the JSON arguments of one tool call as they stream and yields the text of its code-like strings.

    ``feed`` returns ``("code", text)`` for the next decoded piece of a string, and ``("done", "")`` when that string's
    closing quote has come. Strings of several keys follow each other in the order of the document. Work is
    proportional to the text fed. When the text cannot be JSON any more, ``malformed`` becomes true and the rest is
    ignored.
    """

    def __init__(self, keys: frozenset[str] = CODE_KEYS) -> None:
        self.malformed = False
        self._keys = keys
        self._state = self._outside
        self._depth = 0
        self._expects_key = False
        self._key = ""
        self._key_length = 0
        self._escape: str | None = None  # what followed the backslash so far, while inside an escape
        self._is_key = False  # the string being read is a key of the top level
        self._is_code = False  # … or the value of a code-like one
        self._decoded: list[str] = []
        self._surrogates = Surrogates()
        self._out: list[tuple[str, str]] = []

    def feed(self, text: str) -> list[tuple[str, str]]:
        position = 0
        while position < len(text) and not self.malformed:
            position = self._state(text, position)
        if self._is_code:
            self._flush()
        out, self._out = self._out, []
        return out

    def _outside(self, text: str, position: int) -> int:
        """Between strings: punctuation moves the depth and tells keys from values; numbers and words do not matter."""
        skipped = _UNTIL_INTERESTING.match(text, position)
        if skipped:
            if self._depth == 0 and skipped.group().strip():
                self.malformed = True
            return skipped.end()
        character = text[position]
        if character == '"':
            top = self._depth == 1
            if self._depth == 0:
                self.malformed = True
            self._is_key = top and self._expects_key
            self._is_code = top and not self._expects_key and self._key in self._keys
            self._state = self._inside
        elif character in "{[":
            if self._depth == 0 and character == "[":
                self.malformed = True
            self._depth += 1
            self._expects_key = self._depth == 1
        elif character in "}]":
            self._depth -= 1
            self._expects_key = False
            if self._depth < 0:
                self.malformed = True
        elif self._depth == 1:
            self._expects_key = character == ","
        return position + 1

    def _inside(self, text: str, position: int) -> int:
        """Inside a string: plain runs are taken whole, escapes one character at a time (they may be cut anywhere)."""
        if self._escape is not None:
            self._read_escape(text[position])
            return position + 1
        run = _PLAIN.match(text, position)
        if run:
            self._take(run.group())
            return run.end()
        if text[position] == "\\":
            self._escape = ""
        else:
            self._end_string()
        return position + 1

    def _read_escape(self, character: str) -> None:
        assert self._escape is not None
        if not self._escape:
            if character == "u":
                self._escape = "u"
                return
            decoded = _ESCAPES.get(character)
            if decoded is None:
                self.malformed = True
                return
        else:
            if character not in "0123456789abcdefABCDEF":
                self.malformed = True
                return
            self._escape += character
            if len(self._escape) < 5:
                return
            decoded = chr(int(self._escape[1:], 16))
        self._escape = None
        self._take(decoded)

    def _take(self, text: str) -> None:
        if self._is_key:
            self._key_length += len(text)
            if self._key_length > _KEY_LIMIT:
                return  # no key of ours is that long, and a stranger's must not grow here
        elif not self._is_code:
            return
        self._decoded.append(text)

    def _end_string(self) -> None:
        self._state = self._outside
        if self._is_key:
            self._key = "".join(self._decoded) if self._key_length <= _KEY_LIMIT else ""
            self._decoded.clear()
            self._key_length = 0
        elif self._is_code:
            self._flush()
            rest = self._surrogates.close()
            if rest:
                self._out.append(("code", rest))
            self._out.append(("done", ""))
            self._key = ""
        self._is_key = self._is_code = False

    def _flush(self) -> None:
        text = self._surrogates.feed("".join(self._decoded))
        self._decoded.clear()
        if text:
            self._out.append(("code", text))
