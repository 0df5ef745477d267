"""Incremental readers: bytes of a conversation in, events out. Standard library only, and no I/O.

Every reader is fed pieces cut anywhere, does work proportional to their length, bounds what it keeps, and never raises
on what a stranger sent: a malformed piece ends the reading of that stream and is counted.

| module | from | to |
|---|---|---|
| ``sse`` | bytes of ``text/event-stream`` | (event, data) |
| ``json_string`` | half-finished JSON arguments of a tool call | the text of its code-like strings |
| ``encodings`` | a ``Content-Encoding`` | the plain bytes |
| ``turn``, ``answer`` | what the readers of all protocols share: what a request says, and an answer | events |
| ``chat_completions`` | a Chat Completions request, and its answer | events |
| ``completions``, ``anthropic``, ``gemini``, ``ollama`` | the same of legacy completions, Messages, Gemini, Ollama | events |
| ``responses``, ``realtime`` | the same of OpenAI's Responses, and of a Realtime response | events |
| ``apis`` | a request's method and path | which of these reads it |
| ``sockets`` | the messages of one WebSocket (Responses, Realtime) | events, with ``session``, ``app`` and ``at`` |
| ``conversation`` | one HTTP exchange, headers and bytes | events, with ``session``, ``app`` and ``at`` |

An *event* here is a plain dict with the fields of ``ephemeral.wire.Event`` (``kind`` and those of ``text``, ``call``,
``name``, ``digest``, ``model``, ``role`` that the kind uses); ``conversation`` adds ``session``, ``app`` and ``at``.
"""
