"""K2's answers provision, resize and release, and all three stand in the database with K2 as proposer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

K2 = Path(__file__).parents[1] / "fakes" / "k2.py"


@pytest.mark.parametrize(("answer", "action"), [
    ("package humanize\nimport humanize\ndone\n", "provision"),
    ("memory 1G\ncpus 1\ndone\n", "resize"),
    ("release\ndone\n", "release"),
])
def test_an_answer_of_k2_becomes_an_action(house_with_k2, answer, action):
    up = house_with_k2(answer)
    client = OpenAI(base_url=up.openai, api_key="sk-test", max_retries=0)
    tool = {"type": "function", "function": {"name": "execute_code", "parameters": {"type": "object", "properties": {"code": {"type": "string"}}}}}
    tasks = Path(__file__).parents[2] / "sdk" / "ephemeral_cli" / "demo" / "tasks.jsonl"
    with tasks.open() as lines:
        messages = next(task for task in map(json.loads, lines) if task["id"] == "sales-csv")["messages"]
    list(client.chat.completions.create(model="m", messages=messages, tools=[tool], stream=True))

    def by_k2():
        return [record for session in up.client.sessions().items for record in up.client.plans(session.id).items
                if record.plan.proposer == "k2" and record.plan.action == action]

    up.until(by_k2, f"a plan by K2 to {action}")
    up.until(lambda: by_k2()[0].outcome != "building", "its outcome")
    assert by_k2()[0].outcome in ("ready", "unchanged", "released")


@pytest.fixture
def house_with_k2(houses):
    started = []

    def start(answer: str):
        k2 = subprocess.Popen([sys.executable, K2, "--port", "0", "--answer", answer], stdout=subprocess.PIPE, text=True)
        address = re.search(r"http://\S+", k2.stdout.readline()).group(0)
        up = houses(EPHEMERAL_K2_API_KEY="k2-test-key", EPHEMERAL_K2_BASE_URL=address)
        started.append((k2, up))
        return up

    yield start
    for k2, up in started:
        up.stop()
        k2.terminate()
        k2.wait(10)
        k2.stdout.close()
