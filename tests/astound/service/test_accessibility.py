"""The page for everybody: WCAG 2.1 A and AA in each of its states, and the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astound.catalog import Catalog
from tests.astound.service.test_browser import (
    OTHER_NAME,
    PLAYED,
    RATE,
    TITLES,
    TUNE_S,
    Open,
    answer,
    catalog,
    chromium,
    config,
    filled,
    music,
    open_page,
    outcome,
    restored,
    url,
    wait_for,
)
from tests.audio_files import cached_tune, write_wav

__all__ = ["catalog", "chromium", "config", "filled", "music", "open_page", "restored", "url"]

pytestmark = pytest.mark.browser

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
SIZES = [{"width": 360, "height": 740}, {"width": 1280, "height": 800}]
TARGET_PX = 44

# Controls that are lower or narrower than a finger; the label of a control is part of it.
SMALL_TARGETS = """least => [
        ...document.querySelectorAll("a, button, input, summary, [role=slider]")
    ]
    .map(one => one.matches("label *") ? one.closest("label") : one)
    .filter(one => !one.closest(".skip, [aria-hidden]"))
    .filter(one => {
        const {width, height} = one.getBoundingClientRect();
        return width > 0 && Math.min(width, height) < least - 0.5;
    }).map(one => one.outerHTML.slice(0, 120))"""

JOB = {
    "id": 900,
    "kind": "ingest",
    "status": "running",
    "created_at": "2026-11-29T15:47:03+00:00",
    "started_at": "2026-11-29T15:47:03+00:00",
    "cancelled_at": None,
    "finished_at": None,
    "key_id": None,
    "options": {"paths": ["/music/new"]},
    "progress": {"done": 17, "total": 240, "unit": "files", "message": ""},
    "error": None,
    "result": None,
}
FAILED = {"status": "failed", "error": {"detail": "the disk is full", "code": "x"}}

State = Callable[[Open, Path], Any]
STATES: dict[str, State] = {}


def state(make: State) -> State:
    """Register a state of the page; `make` opens it."""
    STATES[make.__name__] = make
    return make


def problem(status: int, code: str) -> dict[str, Any]:
    """Answer of a service that refuses a request."""
    body = {"title": "No", "status": status, "detail": "it is refused", "code": code}
    return {"status": status, "json": body}


@state
def question(open_page: Open, music: Path) -> Any:
    return open_page()


@state
def listening(open_page: Open, music: Path) -> Any:
    page = open_page()
    page.route("**/v1/query*", lambda route: route.fulfill(**problem(503, "overloaded")))
    page.get_by_role("button", name="Listen").click()
    page.get_by_text("Listening").wait_for()
    return page


@state
def no_microphone(open_page: Open, music: Path) -> Any:
    page = open_page(permissions=[])
    page.get_by_role("button", name="Listen").click()
    page.get_by_role("alert").wait_for()
    return page


@state
def no_https(open_page: Open, music: Path) -> Any:
    return open_page(host=OTHER_NAME)


def asked(open_page: Open, file: Path) -> Any:
    page = open_page()
    page.locator("input[type=file]").set_input_files(file)
    answer(page)
    return page


@state
def two_answers(open_page: Open, music: Path) -> Any:
    page = asked(open_page, music / "two songs.wav")
    page.get_by_role("slider").nth(1).wait_for()
    page.get_by_role("button", name="Why?").click()
    page.get_by_text("reaches the threshold").wait_for(timeout=60_000)
    return page


@state
def no_answer(open_page: Open, music: Path) -> Any:
    return asked(open_page, music / "unknown.wav")


@state
def no_audio(open_page: Open, music: Path) -> Any:
    return asked(open_page, music / "text.wav")


@state
def refused(open_page: Open, music: Path) -> Any:
    page = open_page()
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("link", name="Library").click()
    page.get_by_role("button", name="Try again").wait_for()
    return page


@state
def key(open_page: Open, music: Path) -> Any:
    page = open_page()
    page.route("**/v1/**", lambda route: route.fulfill(**problem(401, "key_needed")))
    page.get_by_role("link", name="Library").click()
    page.get_by_role("dialog").wait_for()
    return page


def library(open_page: Open, path: str = "") -> Any:
    page = open_page(f"#/library{path}")
    page.get_by_text(TITLES[0]).first.wait_for()
    return page


@state
def tracks(open_page: Open, music: Path) -> Any:
    return library(open_page)


@state
def no_tracks(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.get_by_role("searchbox").fill("nothing at all")
    page.get_by_text("No track has").wait_for()
    return page


@state
def one_track(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.get_by_role("link", name=TITLES[0]).click()
    page.get_by_role("article", name=TITLES[0]).get_by_role("slider").wait_for()
    return page


@state
def editor(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.get_by_role("button", name=f"Edit {TITLES[0]}").click()
    page.get_by_role("button", name="Note something else").click()
    return page


@state
def deleted(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.evaluate("void (window.fetch = () => new Promise(() => {}))")  # or leaving would delete it
    page.get_by_role("button", name=f"Delete {TITLES[0]}").click()
    page.get_by_role("button", name="Undo").wait_for()
    return page


@state
def media(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.get_by_text("From the computer that runs astound").click()
    page.get_by_role("checkbox", name="Choose the folder new").check()
    return page


@state
def added(open_page: Open, music: Path) -> Any:
    page = library(open_page)
    page.locator("input[type=file]").set_input_files([music / "text.wav", music / "known.wav"])
    outcome(page)
    return page


@state
def adding(open_page: Open, music: Path) -> Any:
    page = open_page()
    event = {"content_type": "text/event-stream", "body": ""}
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": [JOB], "next": None}))
    page.route("**/v1/jobs/900", lambda route: route.fulfill(json=JOB))
    page.route("**/v1/jobs/900/events", lambda route: route.fulfill(**event))
    page.get_by_role("link", name="Library").click()
    page.get_by_role("progressbar").wait_for()
    return page


@state
def timeline(open_page: Open, music: Path) -> Any:
    page = open_page("#/recordings")
    page.locator("input[type=file]").set_input_files(music / "mix.wav")
    page.get_by_text("Save as").wait_for(timeout=120_000)
    page.get_by_role("button", name=f"{TITLES[1]} The Quiet").click()
    page.get_by_role("slider").wait_for()
    return page


@state
def recordings(open_page: Open, music: Path) -> Any:
    return open_page("#/recordings")


@state
def activity(open_page: Open, music: Path) -> Any:
    page = open_page()
    jobs = [JOB, {**JOB, **FAILED, "id": 1}, {**JOB, "id": 2, "kind": "scan", "status": "done"}]
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": jobs, "next": None}))
    page.locator("input[type=file]").set_input_files(music / "text.wav")
    answer(page)
    page.get_by_role("link", name="Activity").click()
    page.get_by_role("img").first.wait_for()
    return page


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", STATES)
def test_state_is_accessible(open_page: Open, music: Path, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = STATES[name](open_page, music)
    for size in SIZES:
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(SMALL_TARGETS, TARGET_PX) == []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options=RULES)
            assert found.violations_count == 0, f"{size} {scheme}: {found.generate_report()}"


# -- the keyboard --------------------------------------------------------------------------------

FOCUSED = """() => {
    const at = document.activeElement;
    const {outlineStyle, outlineWidth} = getComputedStyle(at.closest(".drop") ?? at);
    const name = at.getAttribute("aria-label") || at.innerText || at.labels?.[0]?.innerText;
    return [name ?? "", outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];
}"""
MAX_STEPS = 60


def tab_to(page: Any, name: str, key: str = "Tab") -> None:
    """Press a key until the control of a name has the focus, which is to be seen at each step."""
    for _ in range(MAX_STEPS):
        page.keyboard.press(key)
        there, is_seen = page.evaluate(FOCUSED)
        assert is_seen, there
        if there.startswith(name):
            return
    raise AssertionError(f"not reached: {name}")


def focused(page: Any) -> str:
    return str(page.evaluate(FOCUSED)[0])


def test_file_is_identified_by_keyboard(open_page: Open, music: Path) -> None:
    page = open_page()
    tab_to(page, "Choose a file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(music / "known.wav")
    answer(page)
    assert focused(page) == TITLES[PLAYED]
    page.get_by_role("button", name="Play Still Water").wait_for()
    tab_to(page, "Play Still Water")
    tab_to(page, "Why?")


def test_track_is_edited_by_keyboard(open_page: Open, catalog: Catalog) -> None:
    page = library(open_page)
    tab_to(page, "Edit Brass Engine")
    page.keyboard.press("Enter")
    wait_for(page, lambda: focused(page) == "Title")
    tab_to(page, "Album")
    page.keyboard.type("Machines")
    page.keyboard.press("Enter")
    page.get_by_text("The Quiet · Machines").wait_for()
    assert focused(page) == "Edit Brass Engine"
    assert catalog.tracks("Brass")[0].album == "Machines"
    page.keyboard.press("Enter")
    wait_for(page, lambda: focused(page) == "Title")
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert focused(page) == "Edit Brass Engine"


def test_deletion_is_undone_by_keyboard(open_page: Open) -> None:
    page = library(open_page)
    tab_to(page, "Delete Night Bus")
    page.keyboard.press("Enter")
    wait_for(page, lambda: page.evaluate(FOCUSED) == ["Undo", True])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete Night Bus").wait_for()
    wait_for(page, lambda: focused(page).startswith("Night Bus"))


@pytest.mark.usefixtures("restored")
def test_one_of_two_duplicates_is_kept_by_keyboard(
    open_page: Open, catalog: Catalog, music: Path
) -> None:
    twin = music / "twin.wav"
    write_wav(twin, 0.7 * cached_tune(PLAYED, TUNE_S, RATE), RATE)
    catalog.add([twin])
    page = library(open_page)
    tab_to(page, "Find duplicates")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Duplicates").wait_for()
    tab_to(page, "Search")
    page.keyboard.press("Enter")
    page.get_by_role("article", name="Still Water and twin").wait_for(timeout=60_000)
    tab_to(page, "Keep this Still Water")
    page.keyboard.press("Enter")
    page.get_by_text("Deleted “twin”").wait_for()
    wait_for(page, lambda: focused(page) == "Undo")
    page.keyboard.press("Enter")
    page.get_by_role("article", name="Still Water and twin").wait_for()


def test_files_of_the_service_are_chosen_by_keyboard(open_page: Open) -> None:
    page = library(open_page)
    tab_to(page, "From the computer that runs astound")
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Folders").wait_for()
    tab_to(page, "new")
    page.keyboard.press("Enter")
    page.get_by_text("Paper Boats.wav").wait_for()
    tab_to(page, "Paper Boats.wav")
    page.keyboard.press("Space")
    tab_to(page, "Add what is chosen (1)")


# -- the rest ------------------------------------------------------------------------------------


def test_nothing_moves_for_those_who_want_that(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    button = page.get_by_role("button", name="Listen")
    assert button.evaluate("one => getComputedStyle(one).transitionDuration") == "0s"


def test_navigation_has_room_for_another_view_on_a_phone(open_page: Open) -> None:
    page = open_page(viewport=SIZES[0])
    tops = page.evaluate(
        """() => {
            const last = document.querySelector("header nav").lastElementChild;
            const added = last.cloneNode();
            added.textContent = "Streams";
            last.before(added);
            return [...last.parentNode.children].map(one => one.getBoundingClientRect().top);
        }"""
    )
    assert len(set(tops)) == 1


def test_progress_and_results_are_announced(open_page: Open, music: Path) -> None:
    page = open_page()
    statuses = page.get_by_role("status")
    assert "Press the button" in statuses.first.inner_text()
    page.route("**/v1/query*", lambda route: route.fulfill(**problem(503, "overloaded")))
    page.locator("input[type=file]").set_input_files(music / "known.wav")
    statuses.get_by_text("The service is busy").wait_for()
    page.unroute("**/v1/query*")
    answer(page)
    assert page.evaluate("document.activeElement.tagName") == "H2"
