"""The page in headless Chromium: for the keyboard, for screen readers, at phone and desktop width, light and dark."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from ensconce.addresses import Address
from ensconce.dashboard.logs import Entries, Heads
from ensconce.dashboard.replicas import Place
from ensconce.dashboard.watcher import Replicas, Sources

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need chromium (apt install chromium)")

SIZES = ((375, 812), (1280, 800))
METRICS = "/monitoring/prometheus/metrics"
HOSTILE = '<img src=x onerror="document.title=1">' + "W" * 300
HEADINGS = "() => Array.from(document.querySelectorAll('h1, h2, h3'), (each) => Number(each.tagName[1]))"
FOCUSED = "() => document.activeElement.id || document.activeElement.className"

FOCUSABLE = """() => Array.from(document.querySelectorAll("a[href], button, input, select, [tabindex='0']"),
  (each) => each.id || each.className)"""
MOVES = """() => Array.from(document.querySelectorAll("*")).filter((each) => {
  const style = getComputedStyle(each);
  return style.animationName !== "none" || style.transitionDuration !== "0s" || style.scrollBehavior !== "auto";
}).map((each) => each.tagName)"""
# Whatever the live region is told, from now on.
LISTEN = """() => {
  window.heard = [];
  const region = document.querySelector("[role=status]");
  new MutationObserver(() => window.heard.push(region.textContent))
    .observe(region, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def started(
    world: Any,
    telling: Callable[..., Address],
    log: Any,
    dashboard: Callable[..., Any],
    wait_for: Callable[..., None],
    find_port: Callable[[], int],
    tmp_path: Any,
) -> Any:
    """A dashboard that has looked once, and looks no more, at a deployment where some is well and some is not."""
    pages = {
        METRICS: f':tensorflow:serving:request_latency_count{{model_name="{HOSTILE[:9]}",API="Predict"}} 5\n'.encode(),
        "/openapi.json": json.dumps({"paths": {"/v1/models/digits": {}}}).encode(),
        "/v1/models/digits": json.dumps(
            {"model_version_status": [{"version": "3", "state": HOSTILE, "status": {"error_message": HOSTILE}}]}
        ).encode(),
    }
    places = [
        Place("replica-1", telling(world.replica(), pages), "ready"),
        Place("replica-2", telling(world.replica(mr_enclave=bytes(32)), pages), HOSTILE),
        Place("replica-3", Address("127.0.0.1", find_port()), "starting"),
    ]
    log.written.append("key.released", key_ids=["model/digits/1"], identity="server", peer="192.0.2.1:5", root="intel")
    log.written.append("key.refused", problem=HOSTILE, check="policy.mr_enclave", peer="192.0.2.1:6")
    key = log.key.public_key()
    sources = Sources(
        replicas=Replicas(lambda: places, world.service(Address("127.0.0.1", 1)), METRICS),
        servers=[f"http://127.0.0.1:{find_port()}"],
        heads=Heads([log], tmp_path / "head.json", key),
        entries=Entries(log.storage, key),
    )
    started = dashboard(sources)
    wait_for(lambda: started.running.watcher.snapshot.at, "the first look")
    started.running.watcher.stop()
    return started


@pytest.fixture
def visit(browser: Any, started: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page, and fails at the end for whatever the console said and whatever was asked of others."""
    url = started.url
    contexts: list[Any] = []
    said: list[str] = []
    asked: set[str] = set()

    def open_page(**options: Any) -> Any:
        state = contexts[0].storage_state() if contexts else None
        contexts.append(browser.new_context(storage_state=state, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(url if state is None else url.partition("enter")[0])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    home = url.partition("enter")[0]
    assert {address for address in asked if not address.startswith((home, "data:"))} == set()


def test_it_fits_at_every_width_and_in_both_schemes(visit: Callable[..., Any]) -> None:
    page = visit()
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = {scheme: _paper(page, scheme) for scheme in ("light", "dark")}
    assert paper["light"] != paper["dark"]


def _paper(page: Any, scheme: str) -> str:
    page.emulate_media(color_scheme=scheme)
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def problems(page: Any) -> list[Any]:
    """What axe-core calls serious or worse, at both widths and in both schemes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    found = []
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            result = axe.run(page, options={"resultTypes": ["violations"]}).response
            assert len(result["passes"]) > 5
            found += [
                (width, scheme, each["id"], [node["html"] for node in each["nodes"]])
                for each in result["violations"]
                if each["impact"] in ("serious", "critical")
            ]
    return found


def test_axe_finds_nothing_serious_on_the_page(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#pause").wait_for()
    assert problems(page) == []


@pytest.mark.parametrize("kind", ["form", "refusal"])
def test_axe_finds_nothing_serious_where_one_signs_in(kind: str, browser: Any, dashboard: Callable[..., Any]) -> None:
    url = dashboard(Sources(), token="t" * 40 if kind == "form" else None).url
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url.partition("enter")[0])
        assert problems(page) == []


def test_who_has_a_keyboard_signs_in_and_walks_through_everything(browser: Any, dashboard: Callable[..., Any]) -> None:
    url = dashboard(Sources(), token="t" * 40).url
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.keyboard.type("wrong" * 8)
        page.keyboard.press("Enter")
        page.get_by_text("That token is wrong").wait_for()
        page.keyboard.type("t" * 40)
        page.keyboard.press("Enter")
        page.locator("#pause").wait_for()
        assert page.url == url  # and so has the history: there is no token in it
        walked = []
        while (page.keyboard.press("Tab"), page.evaluate(FOCUSED))[1] not in ("", walked[0] if walked else None):
            walked.append(page.evaluate(FOCUSED))
        assert walked == page.evaluate(FOCUSABLE) == ["skip", "refresh", "pause"]
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        assert page.evaluate(FOCUSED) == "main"


def test_nothing_moves(visit: Callable[..., Any]) -> None:
    page = visit(reduced_motion="no-preference")
    assert page.evaluate(MOVES) == []


def test_it_is_there_for_keyboard_and_screen_reader(visit: Callable[..., Any]) -> None:
    page = visit()
    order = []
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(page.evaluate(FOCUSED))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["skip", "refresh", "pause"]
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Pause updates").get_attribute("aria-pressed") == "true"
    levels = page.evaluate(HEADINGS)
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    for name in ("At a glance", "Replicas", "Models", "Traffic", "Keys", "Audit log", "Provisioning"):
        assert page.get_by_role("region", name=name).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    table = page.get_by_role("region", name="Replicas").get_by_role("table")
    assert table.get_by_role("columnheader").count() == 7
    assert table.get_by_role("rowheader").all_inner_texts()[0].startswith("replica-1")


def test_what_is_said_of_replicas_is_true_and_harms_nobody(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.title().startswith("SIMULATED")
    assert page.get_by_text("No hardware protects these enclaves").is_visible()
    verdicts = page.locator("#replicas .mark").all_inner_texts()
    assert [re.sub(r"\W", "", each) for each in verdicts] == ["Accepted", "Refused", "Unreachable"]
    assert page.locator("img").count() == 0
    assert "onerror" in page.locator("#models").inner_text()
    assert "model/digits/1" in page.locator("#keys").inner_text()


def test_what_changes_is_exchanged_and_focus_stays(
    visit: Callable[..., Any], started: Any, log: Any, wait_for: Callable[..., None]
) -> None:
    page = visit()
    page.clock.install()
    page.reload()
    page.locator("#pause").focus()
    log.fork()
    started.running.watcher.look()
    page.clock.run_for(6000)
    page.locator("#log .mark.bad").wait_for()
    assert page.evaluate(FOCUSED) == "pause"
    assert "Bent" in page.get_by_role("status").inner_text()
    page.keyboard.press("Space")
    log.written.append("key.refused", peer="192.0.2.1:7", problem="the latest")
    started.running.watcher.look()
    with pytest.raises(playwright.TimeoutError), page.expect_response("**/", timeout=100):
        page.clock.run_for(20_000)
    page.keyboard.press("Space")
    page.locator("#keys").get_by_text("the latest").wait_for()


def test_it_is_whole_without_javascript(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert page.get_by_role("link", name="Refresh").is_visible()
    assert page.locator("#pause").count() == 0
    assert "1 of 3 accepted" in page.locator("#summary").inner_text()


def test_the_live_region_tells_what_has_changed_and_does_not_chatter(
    visit: Callable[..., Any], started: Any, log: Any
) -> None:
    page = visit()
    page.clock.install()
    page.reload()
    page.evaluate(LISTEN)

    def after_the_next_exchange() -> list[str]:
        page.evaluate("document.getElementById('age').className = 'before'")
        page.clock.run_for(5000)
        page.locator("#age:not(.before)").wait_for()
        return list(page.evaluate("window.heard"))

    for _ in range(2):
        log.written.append("key.refused", peer="192.0.2.1:7", problem="again")
        started.running.watcher.look()
        assert after_the_next_exchange() == []
    log.fork()
    started.running.watcher.look()
    (heard,) = after_the_next_exchange()
    assert "Audit log: Bent" in heard
    started.running.watcher.look()
    assert after_the_next_exchange() == [heard]
