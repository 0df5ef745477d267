"""Which requests are read, and as what."""

from __future__ import annotations

import pytest

from ephemeral.streams import apis


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions?x=1", "chat completions"),
        ("post", "/openai/deployments/m/chat/completions/", "chat completions"),
        ("POST", "/api/v1/chat/completions", "chat completions"),
        ("POST", "/v1/completions", "completions"),
        ("POST", "/openai/deployments/m/completions?api-version=1", "completions"),
        ("POST", "/v1/messages?beta=true", "anthropic messages"),
        ("POST", "/anthropic/v1/messages", "anthropic messages"),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/c@1:streamRawPredict", "anthropic messages"),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict", "anthropic messages"),
        ("POST", "/model/eu.anthropic.c-v1%3A0/invoke", "anthropic messages"),
        ("POST", "/v1beta/models/gemini-2.5-flash:generateContent?key=k", "gemini"),
        ("POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "gemini"),
        ("POST", "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent", "gemini"),
        ("POST", "/ollama/api/chat", "ollama"),
        ("POST", "/api/generate", "ollama"),
        ("POST", "/v1/messages/count_tokens", None),
        ("POST", "/v1/messages/batches", None),
        ("POST", "/v1/threads/t/messages", None),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", None),
        ("POST", "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict", None),
        ("POST", "/model/eu.anthropic.c-v1%3A0/invoke-with-response-stream", None),
        ("POST", "/v1internal:streamGenerateContent", None),
        ("POST", "/v1beta/models/g:countTokens", None),
        ("POST", "/v1beta/models/g:batchGenerateContent", None),
        ("POST", "/api/embed", None),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/embeddings", None),
    ],
)
def test_a_protocol_is_told_by_method_and_path(method, path, name) -> None:
    api = apis.find(method, path)
    assert (api and api.name) == name
