"""The built dashboard in Debian's Chromium, over real HTTP and a real event stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Request, expect

from ephemeral import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Tab:
    """A page, and what it did besides showing itself."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of its console: script errors, refusals of the content security policy, failed requests."""
    elsewhere: list[str] = field(default_factory=list)
    """Requests to anybody but its own server."""


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, dashboard_server) -> AsyncIterator[Tab]:
    """A fresh page. After the test it must have been silent, and have asked nobody but its own server."""
    context = await browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    tab = Tab(await context.new_page())

    def on_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme != "data" and f"{address.scheme}://{address.netloc}" != dashboard_server.url:
            tab.elsewhere.append(request.url)

    tab.page.on("request", on_request)
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("console", lambda line: tab.complaints.append(line.text) if line.type in ("error", "warning") else None)
    yield tab
    await context.close()
    assert tab.complaints == []
    assert tab.elsewhere == []


def executions(page: Page) -> Locator:
    return page.get_by_role("region", name="Executions").get_by_role("table")


def decisions(page: Page) -> Locator:
    """A row a decision, beside the head and the folded details."""
    return page.get_by_role("table", name="Decisions").locator("> tbody > tr:visible")


async def test_a_day_is_shown_as_sessions_a_timeline_and_a_table(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)

    sessions = page.get_by_role("navigation", name="Sessions")
    await expect(sessions.get_by_role("link")).to_have_count(4)
    await expect(sessions.get_by_role("link").nth(1)).to_contain_text("plot-7f3a")
    await expect(page.get_by_text("The plan came 5.3 s before the code")).to_be_visible()

    timeline = page.get_by_role("group", name="Timeline")
    for mark in (
        "turn 1 · gpt-4.1", "pandas 81 → 100 % · learned, seen", "seaborn 20 % · K2", "pandaz refused · seen",
        "preload 1.4 s pandas, matplotlib.pyplot", "frozen", "lead time 5.3 s", "live · waited 2.1 ms · ran 138 ms",
        "shadow_build a kind this page has never heard of"[:36],
    ):  # fmt: skip
        await expect(timeline.get_by_text(mark).first).to_be_visible()

    rows = executions(page).get_by_role("row")
    await expect(rows).to_have_count(4)
    await expect(rows.nth(1)).to_contain_text("live")
    await expect(rows.nth(2)).to_contain_text("timeout")
    await expect(page.get_by_role("meter", name="Memory of all sandboxes")).to_be_visible()


async def test_news_appears_without_a_reload(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    await expect(executions(page).get_by_role("row")).to_have_count(4)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()

    now = time.time()
    session = wire.Session(id="just-begun", started_at=now, last_at=now)
    running = wire.Execution(id="ex-9", session="just-begun", created_at=now + 2, tier="snapshot", wait_ms=190.0, state="running")
    done = running.model_copy(update={"state": "done", "verdict": "ok", "run_ms": 12.0})
    dashboard_server.sessions.insert(0, session)
    dashboard_server.push(wire.Live(kind="session", session=session))
    await expect(page.get_by_role("heading", name="Session just-begun")).to_be_visible()

    timeline = page.get_by_role("group", name="Timeline")
    dashboard_server.push(wire.Live(kind="moment", moment=wire.Moment(session="just-begun", at=now, kind="turn_started")))
    await expect(timeline.get_by_text("turn 1")).to_be_visible()
    dashboard_server.push(wire.Live(kind="execution", execution=running))
    await expect(timeline.get_by_text("snapshot · waited 190 ms · runs…")).to_be_visible()
    dashboard_server.push(wire.Live(kind="execution", execution=done))
    await expect(timeline.get_by_text("snapshot · waited 190 ms · ran 12 ms")).to_be_visible()
    await expect(executions(page).get_by_role("row")).to_have_count(5)
    dashboard_server.push(wire.Live(kind="host", host=dashboard_server.host.model_copy(update={"sandboxes": 77})))
    await expect(page.get_by_text("77", exact=True)).to_be_visible()


async def test_a_choice_is_an_address(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    await page.get_by_role("link", name="surprise-52de").first.click()
    await page.get_by_role("navigation", name="Filter by tier").get_by_role("link", name="cold").click()
    await page.wait_for_url("**/?session=surprise-52de&tier=cold")
    await page.reload()
    await expect(page.get_by_role("heading", name="Session surprise-52de")).to_be_visible()
    await expect(executions(page).get_by_role("row")).to_have_count(2)


async def test_an_execution_unfolds_its_stages_and_its_output_as_text(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    await page.get_by_role("button", name="Details of the execution").first.press("Enter")
    table = executions(page)
    await expect(table.get_by_text("thaw 1.1 ms")).to_be_visible()
    await expect(table.get_by_text("<script>alert(1)</script>")).to_be_visible()
    await expect(table.get_by_text("<table><tr><td>1</td></tr></table>")).to_be_visible()
    picture = table.get_by_role("img", name="Drawn by the code")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("image => image.naturalWidth") == 240


async def test_every_decision_is_shown_with_its_evidence_its_cost_and_what_came_of_it(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    rows = decisions(page)
    await expect(rows).to_have_count(4)
    for words in ("120 ms", "learned", "pandas 81 %, used", "matplotlib 64 %, used", "580 ms", "110 ms", "ready after 2.9 s"):
        await expect(rows.nth(0)).to_contain_text(words)
    await expect(rows.nth(2)).to_contain_text("seaborn 20 %, not needed so far")
    await expect(rows.nth(3)).to_contain_text("pandaz 10 %, refused")
    await expect(rows.nth(3)).to_contain_text("dropped: seaborn")

    await page.get_by_role("button", name="Details of the decision after 3.6 s").press("Enter")
    weighed = page.get_by_role("table", name="Packages of the decision after 3.6 s")
    await expect(weighed.get_by_role("row", name="pandas")).to_contain_text("imported by the code after 5.4 s (live, waited 2.1 ms), loaded already")
    await expect(weighed.get_by_role("row", name="pandaz")).to_contain_text("refused: not a known package")
    await expect(weighed.get_by_role("row", name="pandaz")).to_contain_text("only make available")

    await page.get_by_role("link", name="surprise-52de").first.click()
    await expect(rows).to_have_count(3)
    await expect(rows.nth(0)).to_contain_text("scipy 60 %, unused")
    await expect(rows.nth(1)).to_contain_text("polars, missed")
    await expect(rows.nth(2)).to_contain_text("torch, missed")


async def test_what_k2_was_asked_and_said_has_a_lane_and_is_read_as_text(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    lane = page.get_by_role("group", name="Timeline").get_by_role("group", name="K2")
    await expect(lane.get_by_text("provision matplotlib, seaborn · 2 s")).to_be_visible()

    question = page.get_by_text("<b>Candidates</b>: pandas 0.81")
    await expect(question).to_be_hidden()
    await page.get_by_text("812 tokens read, 164 written").click()
    await expect(question).to_contain_text("my key is [api key]. <b>Candidates</b>")
    await expect(page.get_by_text("<i>seaborn</i> is not.")).to_be_visible()


async def test_the_timeline_is_walked_with_the_keyboard(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    details = page.get_by_role("region", name="Details of the mark")
    mark = page.get_by_role("button", name="The user’s message")
    await mark.focus()
    await expect(details).to_contain_text("Plot the monthly sales in sales.csv.")
    await page.keyboard.press("ArrowDown")
    await expect(details).to_contain_text("Package pandas")
    await expect(details).to_contain_text("95 %, seen (mention)")
    await page.keyboard.press("+")
    await page.keyboard.press("End")
    await expect(details).to_contain_text("The sandbox stands ready, frozen")
    await expect(page.locator("[data-mark]:focus")).to_have_count(1)


async def test_a_phone_shows_everything_without_scrolling_sideways(tab: Tab, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    page = tab.page
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.goto(dashboard_server.signed_in_url)
    await expect(page.get_by_text("lead time 5.3 s")).to_be_visible()
    await page.get_by_role("button", name="Details of the execution").first.click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def test_an_empty_host_says_how_to_connect_an_app(tab: Tab, dashboard_server) -> None:
    page = tab.page
    await page.goto(dashboard_server.signed_in_url)
    await expect(page.get_by_text("export OPENAI_BASE_URL=http://127.0.0.1:8787/v1")).to_be_visible()
    await expect(page.get_by_text("http://127.0.0.1:8788/mcp")).to_be_visible()

    now = time.time()
    dashboard_server.push(wire.Live(kind="session", session=wire.Session(id="first", started_at=now, last_at=now)))
    await expect(page.get_by_role("heading", name="Session first")).to_be_visible()


async def test_a_browser_without_the_cookie_is_told_what_to_open(browser: Browser, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(dashboard_server.url)
    await expect(page.get_by_role("heading", name="This dashboard needs a token")).to_be_visible()
    await expect(page.get_by_text("Open the address that ephemeral up printed")).to_be_visible()
    assert "plot-7f3a" not in await page.content()
    await context.close()


async def test_what_happened_while_the_connection_was_lost_is_shown_after_it(browser: Browser, dashboard_server, record) -> None:
    record(dashboard_server, time.time())
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(dashboard_server.signed_in_url)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    port = urlsplit(dashboard_server.url).port
    await dashboard_server.stop()
    await expect(page.get_by_text("Connection lost, trying again…")).to_be_visible()

    now = time.time()
    dashboard_server.sessions.insert(0, wire.Session(id="meanwhile", started_at=now, last_at=now))
    await dashboard_server.start(port)
    await expect(page.get_by_role("heading", name="Session meanwhile")).to_be_visible()
    await context.close()
