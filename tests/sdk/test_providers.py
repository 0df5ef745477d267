"""Which providers there are, read from the settings."""

from __future__ import annotations

import pytest

from ephemeral.providers import Provider, ProviderError, configured, ports


@pytest.mark.parametrize(
    ("url", "provider", "authority"),
    [
        ("https://api.openai.com", Provider("openai", "https", "api.openai.com", 443), "api.openai.com"),
        ("  https://API.openai.com/v1/ ", Provider("openai", "https", "api.openai.com", 443), "api.openai.com"),
        ("https://openrouter.ai/api/v1", Provider("openai", "https", "openrouter.ai", 443, "/api"), "openrouter.ai"),
        ("http://[::1]:8000", Provider("openai", "http", "::1", 8000), "[::1]:8000"),
        ("https://x:80", Provider("openai", "https", "x", 80), "x:80"),
        ("http://model_server:8000/", Provider("openai", "http", "model_server", 8000), "model_server:8000"),
    ],
)
def test_a_provider_may_have_a_port_and_a_base_path(url, provider, authority) -> None:
    assert Provider.parse("openai", url) == provider
    assert provider.authority == authority


def test_its_address_always_has_a_port() -> None:
    assert Provider.parse("openai", "https://api.openai.com").address == "api.openai.com:443"
    assert Provider.parse("openai", "http://[::1]").address == "[::1]:80"


def test_only_openais_requests_bring_their_v1_along() -> None:
    assert Provider.parse("vllm", "http://127.0.0.1:8000/v1/").base == "/v1"


@pytest.mark.parametrize("url", ["api.openai.com", "ftp://x", "https://", "https://x:y", "https://x/?a=b", "//x", "https://x:0", "https://a..b", "https://[::1", "https://x/a b", "https://exämple.com"])
def test_what_names_no_provider_is_refused_with_an_example(url) -> None:
    with pytest.raises(ProviderError, match=r"^EPHEMERAL_UPSTREAM .*write a scheme and a host, for example https://api\.openai\.com"):
        Provider.parse("openai", url)
    with pytest.raises(ProviderError, match=r"^anthropic in EPHEMERAL_UPSTREAMS .*for example anthropic=https://api\.anthropic\.com"):
        Provider.parse("anthropic", url)


@pytest.mark.parametrize("url", ["https://user:secret@x", "ftp://user:secret@x", "https://user:secret@x:y", "secret@x"])
def test_a_credential_in_an_address_is_refused_and_not_repeated(url) -> None:
    with pytest.raises(ProviderError, match="holds more than an address") as refusal:
        Provider.parse("openai", url)
    assert "secret" not in str(refusal.value)


def test_five_providers_are_known_from_the_start() -> None:
    assert {name: one.url for name, one in configured().items()} == {
        "openai": "https://api.openai.com",
        "anthropic": "https://api.anthropic.com",
        "gemini": "https://generativelanguage.googleapis.com",
        "ollama": "http://127.0.0.1:11434",
        "openrouter": "https://openrouter.ai/api",
    }


def test_more_can_be_added_and_known_ones_moved(monkeypatch) -> None:
    monkeypatch.setenv("EPHEMERAL_UPSTREAM", "https://api.k2think.ai/v1")
    monkeypatch.setenv("EPHEMERAL_UPSTREAMS", " vllm-2=http://gpu:8000/v1   ollama=http://gpu:11434 ")
    found = configured()
    assert found["openai"].host == "api.k2think.ai"
    assert found["vllm-2"] == Provider("vllm-2", "http", "gpu", 8000, "/v1")
    assert found["ollama"].address == "gpu:11434"
    assert "anthropic" in found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vllm", "its entry 1 is none"),
        ("vllm=http://x, http://user:secret@y", "its entry 2 is none"),
        ("=http://x", "its entry 1 is none"),
        ("V1=http://x", "names 'V1'"),
        ("v1=http://x", "not v1 or healthz"),
        ("healthz=http://x", "not v1 or healthz"),
        ("2nd=http://x", "begins with a letter"),
        ("a=http://x a=http://y", "names a twice"),
        ("openai=http://x", "write EPHEMERAL_UPSTREAM=URL"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_by_the_name_of_its_variable(monkeypatch, text, says) -> None:
    monkeypatch.setenv("EPHEMERAL_UPSTREAMS", text)
    with pytest.raises(ProviderError, match=says) as refusal:
        configured()
    assert "EPHEMERAL_UPSTREAMS" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_providers_may_have_ports_of_their_own(monkeypatch) -> None:
    assert ports() == {}
    monkeypatch.setenv("EPHEMERAL_UPSTREAMS", "vllm=http://gpu:8000")
    monkeypatch.setenv("EPHEMERAL_PROXY_PORTS", "anthropic=8791 openai=8792 vllm=8793")
    assert ports() == {"anthropic": 8791, "openai": 8792, "vllm": 8793}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("anthropic", "its entry 1 is none"),
        ("claude=8791", "write one of openai, anthropic, gemini, ollama, openrouter"),
        ("ollama=0", "from 1 to 65535"),
        ("ollama=65536", "from 1 to 65535"),
        ("ollama=-1", "from 1 to 65535"),
        ("ollama=1_000", "from 1 to 65535"),
        ("ollama=٣", "from 1 to 65535"),
        ("ollama=8791 ollama=8792", "names ollama twice"),
        ("ollama=8791 anthropic=8791", "which is ollama's: write another, for example anthropic=8792"),
        ("ollama=8787", "which is EPHEMERAL_PROXY_PORT's: write another, for example ollama=8788"),
        ("ollama=8786", "which is EPHEMERAL_INTERCEPT_PORT's: write another, for example ollama=8788"),
        ("ollama=65535 anthropic=65535", "for example anthropic=65534"),
    ],
)
def test_ports_that_cannot_be_are_refused_by_the_name_of_their_variable(monkeypatch, text, says) -> None:
    monkeypatch.setenv("EPHEMERAL_PROXY_PORTS", text)
    with pytest.raises(ProviderError, match=says) as refusal:
        ports()
    assert str(refusal.value).startswith("EPHEMERAL_PROXY_PORTS ")
