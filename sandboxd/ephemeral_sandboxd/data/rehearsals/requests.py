# Everything that a request needs but the connection: the answer comes from an adapter of ours.
import io

import requests
from requests.adapters import HTTPAdapter


class Answer(HTTPAdapter):
    def send(self, request, **options):
        response = requests.Response()
        response.status_code = 200
        response.request = request
        response.url = request.url
        response.headers["content-type"] = "application/json; charset=utf-8"
        response.encoding = "utf-8"  # guessing one costs 27 MB
        response.raw = io.BytesIO(b'{"a": 1}')
        return response


with requests.Session() as session:
    session.mount("https://", Answer())
    session.get("https://example.com/a", params={"b": 1}).json()
    session.post("https://example.com/a", json={"b": 1}, headers={"c": "d"}, timeout=1).json()
"example.com".encode("idna")  # what looking up a host's address does
