"""Logs of a real process: one object a line when asked for, and no credential in either form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import datetime

import pytest

from ephemeral.logs import redact

LOGGING = textwrap.dedent("""
    import logging
    from ephemeral import logs

    logs.begin({least})
    log = logging.getLogger("ephemeral_sandboxd.daemon")
    log.debug("quiet")
    log.info("Authorization: Bearer SECRET-12345678", extra={"session": "s1", "token": "SECRET", "lines": ["password=SECRET", 1], "ms": 2.5})
    logging.getLogger("some.library").info("a library")
    logging.getLogger("some.library").warning("two\\nlines of %s", "it")
    try:
        raise ValueError("https://user:SECRET@index.example/simple said sk-SECRETSECRET1234")
    except ValueError:
        log.exception("it failed")
""")


def run(least: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    program = LOGGING.replace("{least}", repr(least) if least else "")
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **variables}, timeout=60, check=False)


def test_json_is_one_object_a_line_with_the_ids_of_its_record():
    done = run(EPHEMERAL_LOG_FORMAT="json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["Authorization: [redacted]", "a library", "two\nlines of it", "it failed"]
    first = lines[0]
    assert (first["level"], first["logger"], first["session"], first["ms"]) == ("info", "ephemeral_sandboxd.daemon", "s1", 2.5)
    assert (first["token"], first["lines"]) == ("[redacted]", ["password=[redacted]", 1])
    assert datetime.fromisoformat(first["time"]).utcoffset().total_seconds() == 0
    assert first["time"].endswith("Z")
    assert "ValueError: https://[redacted]@index.example/simple said [redacted]" in lines[-1]["exception"]
    assert "SECRET" not in done.stderr


def test_text_is_for_people_and_has_no_secret_either():
    done = run()
    assert "INFO ephemeral_sandboxd.daemon: Authorization: [redacted]" in done.stderr
    assert "ValueError: https://[redacted]@index.example/simple said [redacted]" in done.stderr
    assert "SECRET" not in done.stderr


@pytest.mark.parametrize(("level", "least", "heard"), [("debug", "", 5), ("info", "", 4), ("warning", "", 2), ("info", "warning", 3), ("error", "", 1)])
def test_the_level_is_a_setting_and_libraries_may_have_a_higher_one(level: str, least: str, heard: int):
    done = run(least, EPHEMERAL_LOG=level, EPHEMERAL_LOG_FORMAT="json")
    assert len(done.stderr.splitlines()) == heard


@pytest.mark.parametrize(("variable", "value", "words"), [("EPHEMERAL_LOG", "loud", "debug, info"), ("EPHEMERAL_LOG_FORMAT", "xml", "write text or json")])
def test_a_setting_that_is_none_is_named(variable: str, value: str, words: str):
    done = run(**{variable: value})
    assert f"{variable} is '{value}'" in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRET", "{'Authorization': 'Basic SECRET'}", "(b'authorization', b'Bearer SECRET')", "authorization=SECRET",
        "Proxy-Authorization: SECRET", "Cookie: ephemeral=SECRET", "X-API-Key: SECRET", "sent Bearer SECRET12345678 to it", "GET /?token=SECRET&x=1",
        "api_key='SECRET'", "EPHEMERAL_K2_API_KEY=SECRET", '{"password": "SECRET"}', "client_secret: SECRET", "key sk-SECRET-12345678", "sk-proj-SECRETSECRET",
        "key-SECRET123456", "ghp_SECRETSECRETSECRET", "hf_SECRETSECRETSECRET", "xoxb-SECRET-12345", "https://SECRET@host/x", "postgres://me:SECRET@host/db",
        "http://me:SE@CRET@host/", "eyJSECRETSECRET.eyJSECRET.SECRET_x",
    ],
)  # fmt: skip
def test_what_looks_like_a_credential_is_taken_out(text: str):
    found = redact(text)
    assert "[redacted]" in found
    assert "SECRET" not in found
    assert "CRET" not in found
    assert redact(found) == found, "twice is the same as once"


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of bad news", "basic information", "max_tokens=300 were used", "scikit-learn and risk-averse-things", "a key-value-store",
        "http://127.0.0.1:8787/v1/chat", "see https://pypi.example/@scope/x", "mail me@example.com", "sandbox box-1234567890 of session x0123456789ab",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "token bucket", "sqlite:///var/lib/ephemeral.db",
    ],
)  # fmt: skip
def test_what_is_none_is_left_alone(text: str):
    assert redact(text) == text
