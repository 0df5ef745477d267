"""LangChain's chat models on top of openai and anthropic: streamed and not, tools, errors."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from record import KEY, prompt, step, url


@tool
def execute_code(code: str) -> str:
    """Runs Python."""
    return "héllo 🐍"


def openai(model: str = "fake", **more: object) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{url('openai')}/v1", api_key=KEY, max_retries=0, **more)


def anthropic(model: str = "fake") -> ChatAnthropic:
    return ChatAnthropic(model=model, base_url=url("anthropic"), api_key=KEY, max_retries=0, max_tokens=1024)


def conversation(chat, protocol: str) -> list:
    """Streamed, with a tool's result in the second turn."""
    chat = chat.bind_tools([execute_code])
    messages = [HumanMessage(prompt(protocol))]
    first = list(chat.stream(messages))
    whole = sum(first[1:], first[0])
    result = ToolMessage(execute_code.invoke(whole.tool_calls[0]["args"]), tool_call_id=whole.tool_calls[0]["id"])
    return [first, list(chat.stream([*messages, whole, result]))]


@step
def openai_conversation():
    return conversation(openai(), "openai")


@step
def openai_responses_conversation():
    return conversation(openai(use_responses_api=True), "openai responses")


@step
def anthropic_conversation():
    return conversation(anthropic(), "anthropic")


@step
def plain():
    return [chat.invoke("Grüße 🐍") for chat in (openai(), anthropic(), openai("fake-br"), anthropic("fake-zstd"))]


@step
async def asynchronous():
    return [await openai().ainvoke("go"), [chunk async for chunk in anthropic().astream("go")]]


@step
def errors():
    raised = []
    for chat in (openai("fake-429"), anthropic("fake-529")):
        try:
            chat.invoke("go")
        except Exception as error:
            raised.append(error)
    return raised


@step
def embeddings():
    model = OpenAIEmbeddings(
        model="fake", base_url=f"{url('openai')}/v1", api_key=KEY, check_embedding_ctx_length=False, max_retries=0
    )
    return model.embed_documents(["one", "zwei 🐍"])
