# What the first model loads.
from pydantic import BaseModel, Field, ValidationError


class Thing(BaseModel):
    a: int = Field(gt=0)
    b: list[str] = []


try:
    Thing(a=-1)
except ValidationError as problem:
    str(problem)
thing = Thing(a=1)
if hasattr(thing, "model_dump"):
    thing.model_dump()
    thing.model_dump_json()
    Thing.model_json_schema()
else:  # pydantic 1
    thing.json()
    Thing.schema()
