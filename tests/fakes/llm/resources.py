"""What is no conversation: embeddings, lists of models, files, audio."""

from __future__ import annotations

import base64
import struct
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

from .answers import CREATED, Body

BINARY = bytes(range(256)) * 300
"""What files and audio hold: every byte there is, more than one read of it."""


def embeddings(body: Body) -> Body:
    given = body.get("input")
    data: list[Body] = []
    for index, text in enumerate(given if isinstance(given, list) else [given]):
        vector: list[float] = [0.25, -0.5, len(str(text)) / 8]
        packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
        said = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": said})
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def models() -> Body:
    return {"object": "list", "data": [{"id": "fake", "object": "model", "created": CREATED, "owned_by": "fakes"}]}


def anthropic_models() -> Body:
    model = {"id": "fake", "type": "model", "display_name": "Fake", "created_at": "2026-09-21T00:00:00Z"}
    return {"data": [{**model, "lifecycle": "active"}], "has_more": False, "first_id": "fake", "last_id": "fake"}


def gemini_models() -> Body:
    return {"models": [{"name": "models/fake", "version": "1", "displayName": "Fake", "inputTokenLimit": 1000}]}


def file(content_type: str, body: bytes) -> Body:
    """The answer to an upload, a multipart form with ``file`` and ``purpose``."""
    form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    parts = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
    return {
        "id": "file-fake", "object": "file", "bytes": len(_content(parts["file"])), "created_at": CREATED,
        "filename": parts["file"].get_filename(), "purpose": _content(parts["purpose"]).decode(), "status": "processed",
    }  # fmt: skip


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content
