"""OpenAI's Agents SDK on top of Responses and of Chat Completions: its own loop of model, tool, model; streamed and not."""

from __future__ import annotations

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI
from record import KEY, prompt, step, url


@function_tool
def execute_code(code: str) -> str:
    """Runs Python."""
    return "héllo 🐍"


def agent(kind: type, client: AsyncOpenAI, model: str = "fake") -> Agent:
    return Agent("Analyst", instructions="You compute.", tools=[execute_code], model=kind(model, client))


def asynchronous() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0)


def config(group: str) -> RunConfig:
    return RunConfig(tracing_disabled=True, group_id=group)


async def streamed(kind: type, protocol: str) -> list:
    async with asynchronous() as client:
        result = Runner.run_streamed(agent(kind, client), prompt(protocol), run_config=config(protocol))
        events = [[event.type, getattr(event, "data", None)] async for event in result.stream_events()]
        return [events, result.final_output, result.to_input_list()]


@step
async def responses_conversation():
    return await streamed(OpenAIResponsesModel, "responses")


@step
async def chat_conversation():
    return await streamed(OpenAIChatCompletionsModel, "chat")


@step
async def whole():
    seen = []
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        async with asynchronous() as client:
            result = await Runner.run(agent(kind, client), "compute", run_config=config("whole"))
            seen.append([result.final_output, result.to_input_list()])
    return seen


@step
async def refused():
    async with asynchronous() as client:
        return await Runner.run(agent(OpenAIResponsesModel, client, "fake-400"), "go", run_config=config("error"))
