"""An ordinary program: the official OpenAI client, its address from the environment, and the official MCP client. It knows nothing of us.

Usage: app.py MCP_URL TASK_ID TASKS_FILE. Prints the code's structured result as JSON, or {} when the model called no tool.
"""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import OpenAI


def main() -> None:
    address, task_id, file = sys.argv[1:]
    with open(file) as lines:
        task = next(task for task in map(json.loads, lines) if task["id"] == task_id)
    tool = {"type": "function", "function": {"name": "execute_code", "description": "Run Python", "parameters": {
        "type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}}}
    arguments = ""
    for chunk in OpenAI(api_key="sk-test", max_retries=0).chat.completions.create(model="m", messages=task["messages"], tools=[tool], stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                arguments += call.function.arguments or ""
    if not arguments:
        sys.stdout.write("{}")
        return

    async def run() -> dict:
        async with Client(streamable_http_client(address)) as client:
            return (await client.call_tool("execute_code", {"code": json.loads(arguments)["code"]})).structured_content

    sys.stdout.write(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
