"""The page in a real browser, with a microphone that plays a file."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from astound.output.timelines import write_timelines
from astound.service.app import create_app
from engine.config import ServiceConfig
from engine.records import Track
from tests.astound.service.conftest import serving
from tests.audio_files import Waveform, cached_tune, write_wav

pytestmark = pytest.mark.browser

RATE = 48_000
TUNE_S = 20.0
TITLES = ["Morning Air", "Brass Engine", "Still Water", "Night Bus"]
PLAYED, PLAYED_AT_S = 2, 6.0
OTHER_NAME = "music.example"
SHARED = "Another tab"

PEAKS = {"track_id": 1, "duration_s": TUNE_S, "peaks": [0.5] * 300, "shares_audio": True}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for seed, title in enumerate(TITLES):
        write_wav(folder / f"{title}.wav", cached_tune(seed, TUNE_S, RATE), RATE)
    write_wav(folder / "unknown.wav", cached_tune(99, 6.0, RATE), RATE)
    write_wav(folder / "known.wav", _part(PLAYED, 6.0), RATE)
    write_wav(folder / "microphone.wav", _noisy(_part(PLAYED, TUNE_S - PLAYED_AT_S)), RATE)
    (folder / "text.wav").write_text("no sound")
    (folder / "new").mkdir()
    write_wav(folder / "new" / "Paper Boats.wav", cached_tune(20, TUNE_S, RATE), RATE)
    shutil.copy(folder / "text.wav", folder / "new")
    first, second = _part(0, 7.0), _part(1, 7.0)
    write_wav(folder / "two songs.wav", np.concatenate([first, second]), RATE)
    silence = np.zeros(round(6.0 * RATE), dtype=np.float32)
    write_wav(folder / "mix.wav", np.concatenate([first, silence, second]), RATE)
    return folder


def _part(seed: int, length_s: float) -> Waveform:
    first = round(PLAYED_AT_S * RATE)
    return cached_tune(seed, TUNE_S, RATE)[first : first + round(length_s * RATE)]


def _noisy(waveform: Waveform) -> Waveform:
    """Add noise 10 dB below the music."""
    noise = np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32)
    mixed = waveform + noise * float(np.sqrt(np.mean(waveform**2) / 10))
    return (0.8 * mixed / np.abs(mixed).max()).astype(np.float32)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, music: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "catalog"
    with astound.open(folder) as catalog:
        catalog.add(
            [music / f"{title}.wav" for title in TITLES],
            metadata={
                str(music / f"{title}.wav"): {"title": title, "artist": "The Quiet"}
                for title in TITLES
            },
        )
    return folder


@pytest.fixture
def catalog(filled: Path) -> Iterator[Catalog]:
    with astound.open(filled) as opened:
        yield opened


@pytest.fixture
def config(music: Path) -> ServiceConfig:
    return ServiceConfig(media=music, share_audio=True)


@pytest.fixture
def url(catalog: Catalog, config: ServiceConfig) -> Iterator[str]:
    """Address of a service that is ready."""
    with serving(create_app(catalog, config, hosts=["*"])) as address:
        yield address


@pytest.fixture
def restored(catalog: Catalog, url: str) -> Iterator[None]:
    """Remove the tracks that a test adds."""
    before = {track.id for track in catalog.tracks()}
    yield
    if added := {track.id for track in catalog.tracks()} - before:
        catalog.delete(sorted(added))


@pytest.fixture(scope="module")
def chromium(music: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        pytest.skip(f"{path} does not exist")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            ignore_default_args=["--mute-audio"],  # what a tab plays is shared
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={music / 'microphone.wav'}",
                f"--auto-select-tab-capture-source-by-title={SHARED}",
                "--autoplay-policy=no-user-gesture-required",
                f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, url: str) -> Iterator[Open]:
    """Give open_page(path, host, ...): a page that loads nothing from elsewhere."""
    contexts, troubles = [], []

    def begin(path: str = "", host: str = "localhost", **options: Any) -> Any:
        context = chromium.new_context(**({"permissions": ["microphone"]} | options))
        contexts.append(context)
        page = context.new_page()
        base = url.replace("localhost", host)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda one: troubles.extend(_outside(one.url, base)))
        page.goto(base + path)
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield begin
    for context in contexts:
        context.close()
    assert troubles == []


def _outside(address: str, base: str) -> list[str]:
    return [] if address.startswith((base, f"blob:{base}", "about:")) else [address]


def answer(page: Any) -> str:
    """Text of the answer, once it is there."""
    page.locator("article.card h2").first.wait_for(timeout=60_000)
    return str(page.locator("article.card").inner_text())


# -- identify ------------------------------------------------------------------------------------


def test_microphone_finds_the_track_and_the_place(open_page: Open, url: str) -> None:
    page = open_page()
    answers: list[dict[str, Any]] = []
    page.on("response", lambda one: answers.extend([one.json()] if "query" in one.url else []))
    page.get_by_role("button", name="Listen").click()
    page.get_by_role("button", name="Stop").wait_for()
    text = answer(page)
    assert TITLES[PLAYED] in text
    assert "The Quiet" in text
    assert re.search(r"(Certain|Very sure) \(", text)
    assert abs(answers[-1]["matches"][0]["offset_s"] - PLAYED_AT_S) < 0.5
    page.locator(".wave svg").wait_for()
    page.get_by_role("button", name="Listen").wait_for()  # it stopped by itself
    assert page.evaluate("document.activeElement.tagName") == "H2"


def test_listening_can_be_stopped(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Listen").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Listen").wait_for()
    assert page.locator("article.card").count() == 0


def test_refused_microphone_is_explained(open_page: Open) -> None:
    page = open_page(permissions=[])
    page.get_by_role("button", name="Listen").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "allow the microphone" in alert.inner_text()
    assert page.locator("input[type=file]").count() == 1


def test_sound_of_another_tab_is_found(open_page: Open, catalog: Catalog) -> None:
    page = open_page()
    (track,) = catalog.tracks(TITLES[PLAYED])
    tab = page.context.new_page()
    tab.goto(page.url)
    tab.evaluate(
        """async ([title, id]) => {
            document.title = title;
            window.player = new Audio(`v1/tracks/${id}/audio`);
            window.player.loop = true;
            await window.player.play();
        }""",
        [SHARED, track.id],
    )
    page.bring_to_front()
    page.get_by_role("button", name="This computer’s sound").click()
    page.get_by_role("button", name="Stop").wait_for()
    assert TITLES[PLAYED] in answer(page)
    page.get_by_role("button", name="Listen").wait_for()


def share(page: Any, script: str) -> None:
    """Let the browser share what a script returns, without asking."""
    page.evaluate(f"void (navigator.mediaDevices.getDisplayMedia = async () => {{ {script} }})")
    page.get_by_role("button", name="This computer’s sound").click()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("return document.createElement('canvas').captureStream()", "No sound was shared"),
        ("throw new DOMException('no', 'NotAllowedError')", "Nothing was shared"),
        ("throw new DOMException('the cable is out', 'AbortError')", "the cable is out"),
    ],
)
def test_computer_whose_sound_is_not_shared_is_explained(
    open_page: Open, script: str, expected: str
) -> None:
    page = open_page()
    share(page, script)
    assert expected in page.get_by_role("alert").inner_text()
    assert page.evaluate("document.activeElement.innerText") == "Listen"


def test_what_was_shared_until_the_end_is_searched(open_page: Open) -> None:
    page = open_page()
    script = """
        const context = new AudioContext();
        const sound = new OscillatorNode(context);
        const {stream} = sound.connect(new MediaStreamAudioDestinationNode(context));
        sound.start();
        setTimeout(() => stream.getTracks().forEach(track => track.stop()), 2500);
        return stream;"""
    share(page, script)
    assert "Not in your library" in answer(page)
    share(page, script.replace("2500", "500"))
    assert "ended before" in page.get_by_role("alert").inner_text()


def test_browser_that_cannot_share_sound_offers_nothing(open_page: Open) -> None:
    page = open_page("#/activity")
    page.evaluate("delete MediaDevices.prototype.getDisplayMedia")
    page.get_by_role("link", name="Identify").click()
    page.get_by_role("button", name="Listen").wait_for()
    assert page.get_by_role("button", name="This computer").count() == 0


def test_microphone_without_https_is_explained_before_it_is_tried(open_page: Open) -> None:
    page = open_page(host=OTHER_NAME)
    assert "only over HTTPS" in page.get_by_role("note").inner_text()
    assert page.get_by_role("button", name="Listen").count() == 0
    assert page.locator("input[type=file]").count() == 1


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("known.wav", TITLES[PLAYED]),
        ("unknown.wav", "Not in your library"),
        ("text.wav", "That did not work"),
    ],
)
def test_file_is_identified(open_page: Open, music: Path, file: str, expected: str) -> None:
    page = open_page()
    page.locator("input[type=file]").set_input_files(music / file)
    assert expected in answer(page)


@pytest.mark.parametrize(("name", "is_limited"), [("known.wav", 0), ("minutes.wav", 1)])
def test_file_of_which_a_part_is_searched_says_so(
    open_page: Open, music: Path, tmp_path: Path, name: str, is_limited: int
) -> None:
    shutil.copy(music / "known.wav", tmp_path)
    write_wav(tmp_path / "minutes.wav", np.tile(_part(PLAYED, 6.0), 11), RATE)
    page = open_page()
    page.locator("input[type=file]").set_input_files(tmp_path / name)
    assert answer(page).count("Only the first minute was searched") == is_limited


def drop(page: Any, *paths: Path) -> None:
    """Drop files on the page, each when the page has been drawn after the one before."""
    page.evaluate(
        """async files => {
            for (const bytes of files) {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
                const about = {dataTransfer: data, bubbles: true, cancelable: true};
                document.body.dispatchEvent(new DragEvent("drop", about));
                await new Promise(drawn => setTimeout(drawn, 60));
            }
        }""",
        [list(path.read_bytes()) for path in paths],
    )


def test_dropped_file_is_identified_and_explained(open_page: Open, music: Path) -> None:
    page = open_page()
    drop(page, music / "known.wav")
    assert TITLES[PLAYED] in answer(page)
    page.get_by_role("button", name="Why?").click()
    page.get_by_text("reaches the threshold").wait_for()


def test_file_dropped_during_a_search_takes_its_place(open_page: Open, music: Path) -> None:
    page = open_page()
    drop(page, music / "unknown.wav", music / "known.wav")
    assert TITLES[PLAYED] in answer(page)


def test_each_song_of_a_clip_has_its_places(open_page: Open, music: Path) -> None:
    page = open_page()
    page.locator("input[type=file]").set_input_files(music / "two songs.wav")
    answer(page)
    for title, in_clip in ((TITLES[0], r"0:00 to 0:0[67]"), (TITLES[1], r"0:0[67] to 0:14")):
        found = page.get_by_role("region", name=title, exact=True)
        clip = found.get_by_role("img", name=re.compile("of the clip"))
        assert re.match(in_clip, clip.get_attribute("aria-label"))
        found.get_by_role("img", name=re.compile(r"0:0[67] to 0:1[34] of 0:20")).wait_for()


def test_place_is_played_from_where_it_was_found(open_page: Open, music: Path) -> None:
    page = open_page()
    page.locator("input[type=file]").set_input_files(music / "known.wav")
    page.get_by_role("button", name="Play Still Water from 0:06").click()
    slider = plays(page, "Still Water", 7)
    slider.press("ArrowRight")
    wait_for(page, lambda: int(slider.get_attribute("aria-valuenow")) >= 12)
    page.get_by_role("button", name="Pause Still Water").click()
    page.get_by_role("button", name="Play Still Water").wait_for()


def plays(page: Any, title: str, at_s: int) -> Any:
    """Wait until a track plays and has reached a second; return its slider."""
    page.get_by_role("button", name=f"Pause {title}").wait_for()
    slider = page.get_by_role("slider", name=f"Position in {title}")
    wait_for(page, lambda: int(slider.get_attribute("aria-valuenow")) in (at_s, at_s + 1))
    return slider


def wait_for(page: Any, is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline_s
        page.wait_for_timeout(50)


@pytest.mark.parametrize("config", [ServiceConfig()], ids=["not shared"])
def test_nothing_is_played_where_audio_is_not_shared(open_page: Open, music: Path) -> None:
    page = open_page()
    page.locator("input[type=file]").set_input_files(music / "known.wav")
    page.locator(".wave svg").wait_for()
    assert page.get_by_role("button", name="Play").count() == 0
    assert page.get_by_role("slider").count() == 0


def test_file_that_the_browser_cannot_play_is_explained(
    open_page: Open, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = music / "text.wav"
    monkeypatch.setattr(Catalog, "audio_file", lambda _catalog, _id: other)
    page = open_page()
    page.route("**/peaks*", lambda route: route.fulfill(json=PEAKS))
    page.locator("input[type=file]").set_input_files(music / "known.wav")
    page.get_by_role("button", name="Play Still Water").click()
    assert "cannot play the file" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Play Still Water").wait_for()


def test_place_is_a_bar_where_the_file_is_gone(open_page: Open, music: Path) -> None:
    page = open_page()
    file = music / f"{TITLES[PLAYED]}.wav"
    file.rename(music / "moved")
    try:
        page.locator("input[type=file]").set_input_files(music / "known.wav")
        page.locator(".bar").wait_for()
        assert "of 0:20" in page.locator(".bar").get_attribute("aria-label")
    finally:
        (music / "moved").rename(file)


# -- library -------------------------------------------------------------------------------------


def titles(page: Any) -> list[str]:
    page.locator(".tracks li").first.wait_for()
    return [str(text) for text in page.locator(".tracks b").all_inner_texts()]


def test_library_is_searched(open_page: Open) -> None:
    page = open_page("#/library")
    assert sorted(titles(page)) == sorted(TITLES)
    page.get_by_role("searchbox").fill("quiet WATER")
    page.get_by_text("1 track found").wait_for()
    assert titles(page) == ["Still Water"]
    page.get_by_role("searchbox").fill("nothing at all")
    page.get_by_text("No track has").wait_for()


def test_track_is_edited(open_page: Open, catalog: Catalog) -> None:
    page = open_page("#/library")
    page.get_by_role("button", name="Edit Morning Air").click()
    page.get_by_label("Title").fill("Evening Air")
    page.get_by_label("Artist").fill("")
    page.get_by_role("button", name="Note something else").click()
    assert page.get_by_label("Title").input_value() == "Evening Air"
    page.get_by_label("Key").fill("mood")
    page.get_by_label("Value").fill("calm")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Edit Evening Air").wait_for()
    (changed,) = catalog.tracks("Evening")
    assert (changed.artist, changed.metadata) == (None, {"mood": "calm"})
    page.get_by_role("button", name="Edit Evening Air").click()
    page.get_by_label("Title").fill("Morning Air")
    page.get_by_label("Artist").fill("The Quiet")
    page.get_by_label("Value").fill("")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Edit Morning Air").wait_for()
    assert catalog.track(changed.id).metadata == {}


def test_deleted_track_can_be_restored(open_page: Open, catalog: Catalog) -> None:
    page = open_page("#/library")
    page.get_by_role("button", name="Delete Still Water").click()
    page.get_by_text("Deleted “Still Water”").wait_for()
    assert "Still Water" not in titles(page)
    page.keyboard.press("Enter")  # Undo has the focus
    page.get_by_role("button", name="Delete Still Water").wait_for()
    assert page.evaluate("document.activeElement.innerText").startswith("Still Water")
    page.goto("about:blank")
    assert len(catalog.tracks()) == len(TITLES)


def test_track_has_a_page_to_listen_and_edit(open_page: Open) -> None:
    page = open_page("#/library")
    page.get_by_role("link", name="Night Bus").click()
    track = page.get_by_role("article", name="Night Bus")
    track.get_by_text("The Quiet").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    track.get_by_role("button", name="Play Night Bus from 0:00").click()
    plays(page, "Night Bus", 1)
    track.get_by_role("button", name="Edit Night Bus").click()
    page.get_by_label("Album").fill("Lines")
    page.get_by_role("button", name="Save").click()
    track.get_by_text("Lines").wait_for()
    track.get_by_role("button", name="Delete Night Bus").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("link", name="Night Bus The Quiet · Lines").wait_for()


def test_track_is_deleted_when_the_page_is_left(
    open_page: Open, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[int] = []
    track = catalog.tracks("Night")[0]

    def delete(ids: list[int], **_: Any) -> list[Track]:
        deleted.extend(ids)
        return [track]

    monkeypatch.setattr(catalog, "delete", delete)
    page = open_page("#/library")
    page.get_by_role("button", name="Delete Night Bus").click()
    page.get_by_text("Deleted").wait_for()
    page.goto("about:blank")
    deadline_s = time.monotonic() + 10
    while not deleted and time.monotonic() < deadline_s:
        page.wait_for_timeout(50)
    assert deleted == [track.id]


# -- jobs ----------------------------------------------------------------------------------------


@pytest.fixture
def held(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let jobs that add music wait until the event is set."""
    go_on = threading.Event()
    add = catalog.add

    def wait(*arguments: Any, **options: Any) -> Any:
        assert go_on.wait(60)
        return add(*arguments, **options)

    monkeypatch.setattr(catalog, "add", wait)
    yield go_on
    go_on.set()


@pytest.mark.usefixtures("restored")
def test_files_are_added(
    open_page: Open, catalog: Catalog, music: Path, held: threading.Event
) -> None:
    page = open_page("#/library")
    files = [music / "new" / "Paper Boats.wav", music / "text.wav", music / "Still Water.wav"]
    page.locator("input[type=file]").set_input_files(files)
    page.get_by_role("progressbar", name="Add music").wait_for()
    page.get_by_role("button", name="Cancel: Add music").wait_for()
    page.reload()  # the job goes on, and is shown again
    page.get_by_role("progressbar", name="Add music").wait_for()
    held.set()
    text = outcome(page)
    assert "1 track added. 1 file already in the library. 1 file could not be added" in text
    assert "text.wav: not audio" in text
    page.get_by_role("button", name="Delete Paper Boats").wait_for()
    assert len(catalog.tracks("Paper Boats")) == 1
    page.get_by_role("button", name="Close").click()
    assert page.locator(".outcome").count() == 0


def outcome(page: Any) -> str:
    page.locator(".outcome").wait_for(timeout=60_000)
    return str(page.locator(".outcome").inner_text())


def test_many_files_are_sent_in_parts(open_page: Open, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(101)]
    for file in files:
        file.write_text("no sound")
    page = open_page("#/library")
    requests: list[Any] = []
    page.route("**/v1/ingest", lambda route: requests.append(route))
    page.locator("input[type=file]").set_input_files(files)
    for share in ("0", "0.99"):
        wait_for(page, lambda: bool(requests))
        bar = page.get_by_role("progressbar", name="Sending 101 files")
        assert bar.get_attribute("value").startswith(share)
        requests.pop().continue_()
    for text in ("100 files could not be added", "1 file could not be added"):
        page.locator(".outcome", has_text=text).wait_for(timeout=60_000)


@pytest.mark.usefixtures("restored")
def test_file_dropped_on_the_library_is_added(open_page: Open, music: Path) -> None:
    page = open_page("#/library")
    drop(page, music / "new" / "Paper Boats.wav")
    assert "1 track added." in outcome(page)
    page.get_by_role("button", name="Delete dropped").wait_for()


def browse(page: Any, *folders: str) -> Any:
    """Open a folder below that of --media; return the list of what is in it."""
    page.get_by_text("From the computer that runs astound").click()
    for folder in folders:
        page.get_by_role("button", name=folder, exact=True).click()
    page.get_by_role("navigation", name="Folders").get_by_text(folders[-1]).wait_for()
    return page.locator(".listing")


@pytest.mark.usefixtures("restored")
def test_folder_of_the_service_is_added(open_page: Open) -> None:
    page = open_page("#/library")
    listing = browse(page, "new")
    assert "Paper Boats.wav" in listing.inner_text()
    assert page.evaluate("document.activeElement.innerText") == "new"
    page.get_by_role("button", name="Add this whole folder").click()
    assert re.search(r"1 track added\..* could not be added", outcome(page))
    page.get_by_role("button", name="Delete Paper Boats").wait_for()


@pytest.mark.usefixtures("restored")
def test_files_of_the_service_are_chosen(open_page: Open) -> None:
    page = open_page("#/library")
    listing = browse(page, "new")
    page.get_by_role("button", name="Media").click()
    listing.get_by_text("known.wav", exact=True).wait_for()
    page.get_by_role("checkbox", name="Choose the folder new").check()
    page.get_by_role("checkbox", name="text.wav").check()
    page.get_by_role("checkbox", name="Choose the folder new").uncheck()
    page.get_by_role("button", name="Add what is chosen (1)").click()
    assert "text.wav: not audio" in outcome(page)
    page.get_by_role("button", name="Add this whole folder").wait_for()


def test_long_folder_of_the_service_is_listed_in_parts(open_page: Open, music: Path) -> None:
    folder = music / "long"
    folder.mkdir()
    for number in range(201):
        (folder / f"{number:03}.wav").touch()
    try:
        page = open_page("#/library")
        listing = browse(page, "long")
        listing.get_by_text("199.wav").wait_for()
        assert listing.locator("li").count() == 200
        page.get_by_role("button", name="Show more").click()
        listing.get_by_text("200.wav").wait_for()
        assert listing.locator("li").count() == 201
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("config", [ServiceConfig()], ids=["no media"])
def test_service_without_a_media_folder_says_how_to_share_one(open_page: Open) -> None:
    page = open_page("#/library")
    page.get_by_text("From the computer that runs astound").click()
    page.get_by_text("astound serve --media").wait_for()


def test_recording_of_the_service_is_scanned(open_page: Open) -> None:
    page = open_page("#/recordings")
    for _ in range(2):
        page.get_by_text("From the computer that runs astound").click()
        page.get_by_role("button", name="mix.wav").click()
        page.get_by_text("Save as").wait_for(timeout=60_000)
        heading, drawn = page.get_by_role("heading", name="mix.wav"), page.locator(".timeline")
        assert heading.bounding_box()["y"] < drawn.bounding_box()["y"]
        page.get_by_role("link", name="All recordings").click()


def test_recording_becomes_a_timeline(
    open_page: Open, catalog: Catalog, music: Path, tmp_path: Path
) -> None:
    page = open_page("#/recordings")
    page.locator("input[type=file]").set_input_files(music / "mix.wav")
    page.get_by_text("Save as").wait_for(timeout=60_000)
    rows = page.get_by_role("row").all_inner_texts()
    assert [re.split(r"\s+", row, maxsplit=2)[2].split("\n")[0] for row in rows[1:]] == [
        TITLES[0],
        "unknown",
        TITLES[1],
    ]
    assert page.locator(".lane").count() == 1
    for form, name in (("cue", "CUE sheet"), ("audacity", "Audacity labels"), ("csv", "CSV")):
        expected = io.StringIO(newline="")
        write_timelines([catalog.scan(music / "mix.wav", name="mix.wav")], form, expected)
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / form)
        assert (tmp_path / form).read_bytes().decode() == expected.getvalue()
        assert download.value.suggested_filename.startswith("mix.")
    entry = page.get_by_role("button", name=f"{TITLES[1]} The Quiet")
    entry.press("Enter")
    plays(page, TITLES[1], 7)
    assert entry.get_attribute("aria-expanded") == "true"
    page.get_by_role("link", name="All recordings").click()
    page.get_by_role("link", name="mix.wav").first.click()
    page.get_by_text("Save as").wait_for()


def test_timeline_is_shown_as_it_is_found(
    open_page: Open, catalog: Catalog, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    scan = catalog.scan

    def held_scan(path: str, *, on_entry: Any, on_progress: Any, **options: Any) -> Any:
        timeline = scan(path, **options)
        on_entry(timeline.entries[0])
        on_progress(10.0)
        assert go_on.wait(60)
        return timeline

    monkeypatch.setattr(catalog, "scan", held_scan)
    page = open_page("#/recordings")
    page.locator("input[type=file]").set_input_files(music / "mix.wav")
    page.get_by_text("so far").wait_for(timeout=60_000)
    page.get_by_role("button", name=f"{TITLES[0]} The Quiet").click()
    page.get_by_role("slider").wait_for()
    assert page.get_by_role("button", name="Cancel: Scan a recording").count() == 1
    go_on.set()
    page.get_by_role("button", name=f"{TITLES[1]} The Quiet").wait_for(timeout=60_000)
    assert page.get_by_text("so far").count() == 0


def test_recording_that_is_no_audio_is_explained(open_page: Open, music: Path) -> None:
    page = open_page("#/recordings")
    page.locator("input[type=file]").set_input_files(music / "text.wav")
    page.get_by_role("alert").wait_for()
    assert "not audio" in page.get_by_role("alert").inner_text()


@pytest.mark.usefixtures("restored")
def test_one_of_two_duplicates_is_kept(open_page: Open, catalog: Catalog, music: Path) -> None:
    copy = music / "new" / "copy.wav"
    write_wav(copy, 0.7 * cached_tune(PLAYED, TUNE_S, RATE), RATE)
    (added,) = catalog.add([copy]).added
    page = open_page("#/duplicates")
    page.get_by_role("button", name=re.compile("^Search")).click()
    pair = page.get_by_role("article", name="Still Water and copy")
    pair.wait_for(timeout=60_000)
    pair.get_by_role("slider", name="Position in copy").wait_for()
    keep = pair.get_by_role("button", name="Keep this Still Water")
    keep.click()
    page.get_by_text("Deleted “copy”").wait_for()
    assert pair.count() == 0
    page.get_by_role("button", name="Undo").click()
    keep.click()
    page.get_by_role("link", name="Library").click()  # then it is carried out
    wait_for(page, lambda: added.track_id not in {track.id for track in catalog.tracks()})


@pytest.mark.usefixtures("restored")
def test_activity_shows_jobs_and_cancels_them(
    open_page: Open, catalog: Catalog, music: Path, held: threading.Event
) -> None:
    page = open_page()
    page.locator("input[type=file]").set_input_files(music / "known.wav")
    answer(page)
    page.get_by_role("link", name="Library").click()
    page.locator("input[type=file][multiple]").set_input_files(music / "new" / "Paper Boats.wav")
    page.get_by_role("progressbar", name="Add music").wait_for()
    page.get_by_role("link", name="Activity").click()
    page.get_by_role("button", name="Cancel: Add music Paper Boats.wav").click()
    page.get_by_text("Stops soon").wait_for()
    held.set()
    page.locator(".jobs li").first.get_by_text("Cancelled").wait_for()
    figures = page.locator(".figures").inner_text()
    assert re.search(r"Queries\s+1\s+1 found", figures)
    assert re.search(r"Queue\s+0", figures)
    assert re.search(r"Tracks\s+\d", figures)
    assert page.get_by_role("img", name=re.compile("Queries: at most")).count() == 1


def test_activity_shows_queries_and_leads_to_what_was_found(open_page: Open, music: Path) -> None:
    page = open_page()
    for file, expected in (("unknown.wav", "Not in your library"), ("known.wav", "Still Water")):
        page.locator("input[type=file]").set_input_files(music / file)
        page.get_by_role("heading", name=expected).wait_for(timeout=60_000)
    page.get_by_role("link", name="Activity").click()
    rows = page.locator(".queries li")
    rows.nth(1).wait_for()
    latest, first = rows.all_inner_texts()
    assert re.search(
        r"Still Water\s+The Quiet\s+known.wav, 6 seconds.*took .*(Certain|Very)", latest, re.DOTALL
    )
    assert re.search(r"Not in the library\s+unknown.wav, 6 seconds", first)
    page.get_by_role("link", name="Still Water").click()
    page.get_by_role("article", name="Still Water").wait_for()


def test_activity_shows_each_listening_once(open_page: Open) -> None:
    common = {"answered_at": "2026-11-29T15:47:03+00:00", "status": "no_match", "best": None}
    queries = [
        {**common, "name": name, "duration_s": duration_s, "elapsed_s": 0.1}
        for name, duration_s in [("microphone", 5), ("microphone", 3), ("a.wav", 4), ("a.wav", 2)]
    ]
    page = open_page()
    page.route("**/v1/queries*", lambda route: route.fulfill(json={"queries": queries}))
    page.get_by_role("link", name="Activity").click()
    rows = page.locator(".queries li")
    rows.first.wait_for()
    texts = [text.split("·")[0].split("\n")[-1].strip() for text in rows.all_inner_texts()]
    assert texts == ["microphone, 5 seconds", "a.wav, 4 seconds", "a.wav, 2 seconds"]


# -- everybody -----------------------------------------------------------------------------------


def test_keyboard_reaches_everything(open_page: Open) -> None:
    page = open_page()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.innerText || document.activeElement.type).trim()"
            )
        )
    views = ["Identify", "Library", "Recordings", "Activity"]
    assert reached == ["Skip to content", "astound", *views, "Listen", "This computer’s sound"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    assert TITLES[PLAYED] in answer(page)


@pytest.mark.parametrize(
    "path", ["", "#/library", "#/recordings", "#/recordings/1", "#/duplicates", "#/activity"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_of_360_pixels_shows_everything(open_page: Open, path: str, scheme: str) -> None:
    size = {"width": 360, "height": 740}
    page = open_page(path, viewport=size, color_scheme=scheme)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", ground)[0])
    assert (red < 128) is (scheme == "dark")


def test_key_is_asked_for_and_kept_for_the_visit(
    open_page: Open, catalog: Catalog, music: Path
) -> None:
    key, secret = catalog.keys.create("write")
    try:
        page = open_page("#/library")
        field = page.get_by_role("textbox", name="Key")
        field.fill("wrong")
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("The key is unknown or was revoked. Whoever").wait_for()
        field.fill(secret)
        page.get_by_role("button", name="Continue").click()
        assert len(titles(page)) == len(TITLES)
        page.reload()
        assert len(titles(page)) == len(TITLES)
        page.get_by_role("link", name="Identify").click()
        page.locator("input[type=file]").set_input_files(music / "known.wav")
        assert TITLES[PLAYED] in answer(page)
        page.get_by_role("button", name="Play Still Water").click()
        plays(page, "Still Water", 7)
    finally:
        catalog.keys.revoke([key.id])
