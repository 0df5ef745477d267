"""The errors of each provider, in its own documented shape."""

from __future__ import annotations

from .answers import Body

_OPENAI = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", "overloaded"),
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_GEMINI = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def error(provider: str, status: int, message: str) -> Body:
    """The JSON body of an answer that is an error."""
    if provider == "openai":
        kind, code = _OPENAI.get(status, ("server_error", None))
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}
    if provider == "anthropic":
        kind = _ANTHROPIC.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    if provider == "gemini":
        return {"error": {"code": status, "message": message, "status": _GEMINI.get(status, "UNKNOWN")}}
    return {"error": message}


def headers(provider: str, status: int) -> dict[str, str]:
    """What the provider's errors say beside their body."""
    said: dict[str, str] = {}
    if status == 429:
        said["Retry-After"] = "1"
        if provider == "openai":
            said["retry-after-ms"] = "40"
    if provider == "anthropic" and status in (429, 529):
        said["x-should-retry"] = "true"
    return said
