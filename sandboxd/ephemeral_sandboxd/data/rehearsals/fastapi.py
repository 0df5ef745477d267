# A request to an application, and the client that tests use where it is installed.
from fastapi import FastAPI
from pydantic import BaseModel


class Thing(BaseModel):
    a: int


application = FastAPI()


@application.post("/")
async def post(thing: Thing):
    return thing


application.openapi()
try:
    from fastapi.testclient import TestClient
except (ImportError, RuntimeError):  # no httpx
    pass
else:
    TestClient(application).post("/", json={"a": 1}).json()
