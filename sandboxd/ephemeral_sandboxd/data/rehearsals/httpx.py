# The transport (httpcore and what it builds on) is imported by the first client; the answers come from us.
import httpx

httpx.Client().close()
with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json={"a": 1}))) as client:
    client.get("https://example.com/a", params={"b": 1}).json()
    client.post("https://example.com/a", json={"b": 1}).read()
try:
    import anyio._backends._asyncio  # what an AsyncClient runs on
except ImportError:
    pass
"example.com".encode("idna")
