"""The page in a real browser, against real servers: what people do on it, what goes wrong, who can use it.

Set WHATWHERE_PICTURES to a folder to have the README's screenshots written there.
"""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.browsing import plain, running
from tests.conftest import INDEXED_PHOTOGRAPHS, QUERY_PHOTOGRAPH
from whatwhere.indexer.pipeline.run import index_paths
from whatwhere.service.client.client import Client
from whatwhere.service.search_options import SearchOptions
from whatwhere.service.security.tokens import Scope, create_token
from whatwhere.service.server import Server

pytestmark = pytest.mark.takes(90)

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 740}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (360, 480, 768, 1024, 1200, 1920)
PATIENCE_MS = 30_000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOTORBIKE = (0.12, 0.2, 0.93, 0.91)
expect.set_options(PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium without a window, or skip where there is none (but where all tests must run)."""
    if CHROMIUM is None:
        message = "Chromium is not installed: `make browser` does that"
        (pytest.fail if os.environ.get("WHATWHERE_TESTS") == "all" else pytest.skip)(message)
    arguments = ["--disable-dev-shm-usage"]  # which is small in containers
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def served(collection: Path) -> Iterator[Server]:
    """Give a server of the photographs with a page."""
    with running(plain(collection, threads=2)) as server:
        yield server


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a collection of 36 parts of photographs: more than one page of results."""
    folder = tmp_path_factory.mktemp("crowd")
    for number, path in enumerate(INDEXED_PHOTOGRAPHS[:3]):
        whole = Image.open(path).convert("RGB")
        for part in range(12):
            left, top = part % 4 * whole.width // 8, part // 4 * whole.height // 6
            box = (left, top, left + whole.width // 2, top + whole.height // 2)
            whole.crop(box).resize((160, 128)).save(folder / f"{number}-{part:02}.png")
    index_paths([folder], folder / "crowd.ww")
    return folder / "crowd.ww"


def address_of(server: Server) -> str:
    return f"http://{server.addresses['web']}/"


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """Give a page that must say nothing on the console, break no policy, and ask nobody but its server."""
    with browser.new_context(**({"viewport": WIDE, "reduced_motion": "reduce"} | options)) as context:
        context.set_default_timeout(PATIENCE_MS)
        page, said = context.new_page(), list[str]()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        hosts = set[str]()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        yield page
        # what a server answers with an error is told on the console by the browser itself
        assert [line for line in said if "Failed to load resource" not in line] == []
        assert len(hosts - {""}) <= 1


@pytest.fixture
def page(browser: Browser, served: Server) -> Iterator[Page]:
    """Give the page of the photographs' server."""
    with opened(browser) as shown:
        shown.goto(address_of(served))
        yield shown


def ask(page: Page, picture: Path = QUERY_PHOTOGRAPH) -> None:
    """Upload a picture and wait for its first result."""
    page.locator("#file").set_input_files(picture)
    expect(names(page).first).to_be_visible()


def ask_stored(page: Page, server: Server, stem: str) -> None:
    """Search by a stored picture, whose requests can be read, and wait for its first result."""
    with Client(f"127.0.0.1:{server.port}") as client:
        name = next(image.name for image in client.images() if f"/{stem}." in image.uri)
    page.goto(f"{address_of(server)}?image={name.removeprefix('images/')}")
    expect(names(page).first).to_be_visible()


def names(page: Page) -> Locator:
    return page.locator("#hits .hit-name")


def found(page: Page) -> list[str]:
    expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    return names(page).all_inner_texts()


def parameters(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def asked_for(page: Page, do: Callable[[], object]) -> dict[str, Any]:
    """Return the search that something leads to, of which the one for boxes is not the first."""
    with page.expect_request(
        lambda request: request.url.endswith(":search") and "localizeCount" not in (request.post_data or "")
    ) as sent:
        do()
    return dict(sent.value.post_data_json)


def draw(page: Page, box: tuple[float, float, float, float]) -> None:
    """Draw a box on the query with the mouse."""
    frame = page.locator("#surface").bounding_box()
    assert frame is not None
    corners = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (box[:2], box[2:])]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=4)
    page.mouse.up()


def box_in(request: dict[str, Any]) -> tuple[float, ...]:
    return tuple(request["region"].get(side, 0) for side in ("xMin", "yMin", "xMax", "yMax"))


def shot(page: Page, name: str) -> None:
    """Write a screenshot for the README, where somebody wants one."""
    if folder := os.environ.get("WHATWHERE_PICTURES"):
        Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(Path(folder) / name, quality=80, optimize=True)


# --- to search ----------------------------------------------------------------------------------------------------


def test_an_uploaded_picture_finds_its_like_and_boxes_come_after(page: Page) -> None:
    """Results first, then the same search for their boxes; the other view comes first, boxed, with its score."""
    searches = list[Route]()

    def hold_the_second(route: Route) -> None:
        searches.append(route)
        if len(searches) == 1:
            route.continue_()

    page.route("**/v1/images:search", hold_the_second)
    ask(page)

    assert found(page)[0] == "motorcycle_right.png"
    while len(searches) < 2:
        page.wait_for_timeout(20)
    expect(page.locator("#hits .mark")).to_have_count(0)
    searches[1].continue_()
    expect(page.locator("#hits .hit").first.locator(".mark")).to_be_visible()
    assert len(searches) == 2
    expect(page.locator("#hits .hit-score").first).to_contain_text("0.")
    expect(page.locator("#query-title")).to_have_text("motorcycle_left.png")


def test_a_dropped_picture_is_searched_with(page: Page) -> None:
    """As if it had been chosen."""
    page.evaluate(
        """async (text) => {
            const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(QUERY_PHOTOGRAPH.read_bytes()).decode(),
    )

    expect(names(page).first).to_have_text("motorcycle_right.png")
    expect(page.locator("#query-title")).to_have_text("dropped.png")


def test_a_random_and_a_stored_picture_are_searched_with(page: Page) -> None:
    """Each finds itself first, and is in the address."""
    page.get_by_role("button", name="Random picture").click()
    expect(page.locator("#hits .hit-score").first).to_contain_text("1.00")
    assert parameters(page)["image"][0].isdigit()

    page.get_by_label("Name of a stored picture").fill("images/3")
    page.get_by_role("button", name="Open").click()

    page.wait_for_url("**/?image=3")
    expect(page.locator("#hits .hit-score").first).to_contain_text("1.00")


def test_a_box_is_drawn_moved_and_resized_with_the_mouse(page: Page, served: Server) -> None:
    """Each asks for what is in it then; its numbers are fractions of the picture."""
    ask_stored(page, served, "motorcycle_right")

    drawn = box_in(asked_for(page, lambda: draw(page, MOTORBIKE)))
    assert drawn == pytest.approx(MOTORBIKE, abs=0.01)
    expect(names(page).first).to_have_text("motorcycle_right.png")
    expect(page.locator("#results-note")).to_contain_text("Searched by")
    region = page.locator(".region").first

    def drag(part: Locator, x: float, y: float) -> None:
        frame, surface = part.bounding_box(), page.locator("#surface").bounding_box()
        assert frame is not None
        assert surface is not None
        page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
        page.mouse.down()
        page.mouse.move(
            frame["x"] + frame["width"] / 2 + x * surface["width"],
            frame["y"] + frame["height"] / 2 + y * surface["height"],
            steps=4,
        )
        page.mouse.up()

    moved = box_in(asked_for(page, lambda: drag(region, -0.1, 0.05)))
    assert moved == pytest.approx([drawn[0] - 0.1, drawn[1] + 0.05, drawn[2] - 0.1, drawn[3] + 0.05], abs=0.01)
    resized = box_in(asked_for(page, lambda: drag(region.locator(".handle.nw"), 0.2, 0.1)))
    assert resized == pytest.approx([moved[0] + 0.2, moved[1] + 0.1, moved[2], moved[3]], abs=0.01)


def test_a_box_is_made_with_the_keyboard_alone(page: Page, served: Server) -> None:
    """Added, moved by arrows, resized with Shift, removed by Delete."""
    ask_stored(page, served, "motorcycle_right")
    page.get_by_role("button", name="Add box").focus()
    added = box_in(asked_for(page, lambda: page.keyboard.press("Enter")))
    region = page.locator(".region")
    expect(region).to_be_focused()

    moved = box_in(asked_for(page, lambda: page.keyboard.press("ArrowLeft")))
    resized = box_in(asked_for(page, lambda: page.keyboard.press("Shift+ArrowDown")))
    removed = asked_for(page, lambda: page.keyboard.press("Delete"))

    assert moved[0] < added[0]
    assert moved[2] - moved[0] == pytest.approx(added[2] - added[0])
    assert resized[3] > moved[3]
    assert resized[1] == moved[1]
    assert "region" not in removed
    expect(region).to_have_count(0)


def test_a_finger_draws_a_box(browser: Browser, served: Server) -> None:
    """Without scrolling the page away under it."""
    with opened(browser, viewport=NARROW, has_touch=True, is_mobile=True) as page:
        ask_stored(page, served, "motorcycle_right")
        frame = page.locator("#surface").bounding_box()
        assert frame is not None
        touch = page.context.new_cdp_session(page)
        for kind, part in (("touchStart", 0.2), ("touchMove", 0.4), ("touchMove", 0.7)):
            point = {"x": frame["x"] + part * frame["width"], "y": frame["y"] + part * frame["height"]}
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        request = asked_for(
            page, lambda: touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        )

        assert box_in(request) == pytest.approx((0.2, 0.2, 0.7, 0.7), abs=0.02)


def test_two_boxes_ask_for_either(page: Page, served: Server) -> None:
    """The second is one more region."""
    ask_stored(page, served, "motorcycle_right")
    first = asked_for(page, lambda: draw(page, (0.05, 0.05, 0.3, 0.3)))

    request = asked_for(page, lambda: draw(page, (0.6, 0.5, 0.9, 0.9)))

    assert not first.get("moreRegions")
    assert box_in(request) == box_in(first)
    assert len(request["moreRegions"]) == 1
    assert len(parameters(page)["box"]) == 2


def test_the_options_change_the_search(page: Page, served: Server) -> None:
    """Descriptor, query expansion, number of boxes, and a filter."""
    ask_stored(page, served, "motorcycle_right")

    by_what = asked_for(page, lambda: page.get_by_label("Compare by").select_option("WHAT"))
    assert by_what["descriptor"] == "DESCRIPTOR_WHAT"
    page.get_by_label("Query expansion").focus()
    expanded = asked_for(page, lambda: page.keyboard.press("ArrowRight"))
    assert expanded["expansionCount"] == 1
    page.get_by_label("Filter", exact=True).fill('uri : "*rocket*"')
    page.keyboard.press("Enter")
    expect(names(page)).to_have_text(["rocket.jpg"])
    said = parameters(page)
    assert (said["by"], said["expansion_count"], said["filter"]) == (["what"], ["1"], ['uri : "*rocket*"'])


# --- why ----------------------------------------------------------------------------------------------------------


def test_factors_are_shown_over_the_picture_and_searched_by(page: Page, served: Server) -> None:
    """A heatmap for each, on and off; kept and left out they are what is searched by, as a client would."""
    page.goto(f"{address_of(served)}?image=1")
    first = page.get_by_role("button", name="Heatmap of factor 0")
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#heatmaps .shown")).to_have_count(1)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#heatmaps .shown")).to_have_count(8)

    kept = asked_for(page, lambda: page.get_by_role("button", name="Keep factor 0").click())
    expect(page.locator("#results-note")).to_have_text("Searched by 1 factor.")
    both = asked_for(page, lambda: page.get_by_role("button", name="Leave out factor 1").click())

    assert kept["concepts"] == [0]
    assert (both["concepts"], both["avoidedConcepts"]) == ([0], [1])
    with Client(f"127.0.0.1:{served.port}") as client:
        expected = [
            hit.image.uri.rpartition("/")[2] for hit in client.search("images/1", SearchOptions(factors=[0])).hits
        ]
    assert found(page) == expected


def test_similar_factors_are_found(page: Page, served: Server) -> None:
    """Of other pictures, each a button that searches by it."""
    page.goto(f"{address_of(served)}?image=1")
    page.get_by_role("button", name="Similar to factor 0").click()

    crops = page.locator(".factor").first.locator(".similar button")
    expect(crops).to_have_count(5)
    crops.first.click()
    page.wait_for_url(lambda url: "image=1" not in url)


def test_what_matched_is_shown_in_the_same_colors(page: Page) -> None:
    """Both pictures, the shared factors as buttons, each with a heatmap on either."""
    ask(page)
    page.get_by_role("button", name="What matched in motorcycle_right.png").click()
    dialog = page.get_by_role("dialog")
    buttons = dialog.locator("#match-factors button")
    expect(buttons).to_have_count(5)

    before = dialog.locator("#match-pictures .shown").count()
    buttons.first.click()

    assert dialog.locator("#match-pictures .shown").count() in (before - 2, before + 2)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


# --- where one is -------------------------------------------------------------------------------------------------


def test_a_link_restores_the_search(page: Page, browser: Browser) -> None:
    """In another browser: the picture, boxes, factors, options and results."""
    page.get_by_label("Name of a stored picture").fill("5")
    page.get_by_role("button", name="Open").click()
    expect(names(page).first).to_be_visible()
    draw(page, (0.1, 0.1, 0.6, 0.6))
    page.get_by_label("Compare by").select_option("WHAT_AND_WHERE")
    page.get_by_role("button", name="Leave out factor 2").click()
    page.wait_for_url("**avoid=2**")
    expected = found(page)

    with opened(browser) as other:
        other.goto(page.url)
        expect(names(other).first).to_be_visible()

        assert found(other) == expected
        expect(other.locator(".region")).to_have_count(1)
        expect(other.get_by_label("Compare by")).to_have_value("WHAT_AND_WHERE")
        expect(other.get_by_role("button", name="Leave out factor 2")).to_have_attribute("aria-pressed", "true")


def test_back_returns_to_the_search_before(page: Page) -> None:
    """Also to a picture that only the page has; and forward again."""
    ask(page)
    page.locator("#hits .hit", has_text="rocket.jpg").locator(".open").click()
    expect(page.locator("#query-title")).to_have_text("rocket.jpg")

    page.go_back()
    expect(page.locator("#query-title")).to_have_text("motorcycle_left.png")
    expect(names(page).first).to_have_text("motorcycle_right.png")
    page.go_forward()
    expect(page.locator("#query-title")).to_have_text("rocket.jpg")
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading", name="Search with a picture")).to_be_visible()


def test_scrolling_brings_the_next_results(browser: Browser, crowd: Path) -> None:
    """Page by page, each once, until there are no more."""
    with running(plain(crowd)) as server, opened(browser) as page:
        page.goto(f"{address_of(server)}?image=1&localize_count=0")
        expect(names(page)).to_have_count(24)
        for _ in range(20):
            page.mouse.wheel(0, 4000)
            page.wait_for_timeout(100)
        expect(page.locator("#end")).to_be_visible()

        shown = names(page).all_inner_texts()
        assert len(shown) == len(set(shown)) == 36


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_file_that_is_no_picture_is_named(page: Page, tmp_path: Path) -> None:
    """By its kind at once, by its content from the server; the next one is searched with."""
    text, broken = tmp_path / "notes.txt", tmp_path / "broken.png"
    text.write_text("no picture")
    broken.write_bytes(QUERY_PHOTOGRAPH.read_bytes()[:2000])

    page.locator("#file").set_input_files(text)
    expect(page.locator("#query-error")).to_contain_text("notes.txt is not an image")
    page.locator("#file").set_input_files(broken)
    expect(page.locator("#query-error")).to_contain_text("save it again")
    ask(page)
    expect(page.locator("#query-error")).to_be_empty()


def test_a_wrong_filter_is_told_beside_it(page: Page, served: Server) -> None:
    """The results of before are gone, the error stands at the field."""
    page.goto(f"{address_of(served)}?image=1")
    page.get_by_label("Filter", exact=True).fill("label = = 3")
    page.keyboard.press("Enter")

    expect(page.locator("#filter-error")).not_to_be_empty()
    page.get_by_label("Filter", exact=True).fill("")
    page.keyboard.press("Enter")
    expect(names(page).first).to_be_visible()
    expect(page.locator("#filter-error")).to_be_empty()


def test_a_server_that_is_gone_is_asked_again(browser: Browser, collection: Path) -> None:
    """The page says so, and goes on when the server is back at its address."""
    settings = plain(collection)
    with opened(browser) as page:
        with running(settings) as server:
            address = server.addresses["web"]
            page.goto(f"http://{address}/")
            expect(page.locator("#hits .hit").first).to_be_visible()
        page.get_by_label("Name of a stored picture").fill("2")
        page.get_by_role("button", name="Open").click()
        panel = page.locator("#results-error")
        expect(panel).to_be_visible()

        with running(plain(collection, web_listen=address)):
            page.get_by_role("button", name="Try again").click()

            expect(names(page).first).to_be_visible()
            expect(panel).to_be_hidden()


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Browser, collection: Path, tmp_path: Path) -> None:
    """Without one nothing is shown; a wrong one is refused; the right one opens, also after a reload, not elsewhere."""
    file = tmp_path / "tokens.json"
    secret = create_token(file, "somebody", (Scope.SEARCH,))
    with running(plain(collection, tokens=file)) as server, opened(browser) as page:
        page.goto(address_of(server))
        field = page.get_by_label("This server requires a token")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("The token was refused")).to_be_visible()
        field.fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator("#hits .hit").first).to_be_visible()
        expect(page.locator("#hits .frame.here").first).to_be_visible()

        page.reload()
        expect(page.locator("#hits .hit").first).to_be_visible()
        stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 1, ""]
        assert secret not in page.url


def test_a_late_refusal_of_an_earlier_token_is_ignored(browser: Browser, collection: Path, tmp_path: Path) -> None:
    """The answer to a request from before the token was entered comes after it: nobody is asked again."""
    file = tmp_path / "tokens.json"
    secret = create_token(file, "somebody", (Scope.SEARCH,))
    held: list[Route] = []
    with running(plain(collection, tokens=file)) as server, opened(browser) as page:

        def hold(route: Route) -> None:  # Playwright marks the function, which a method of a list does not allow
            held.append(route)

        page.route("**/v1/collection", hold, times=1)
        page.goto(address_of(server))
        page.get_by_label("This server requires a token").fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator("#hits .hit").first).to_be_visible()

        # The answer to the request with the token may still be under way: only the one that was held is refused.
        with page.expect_response(lambda response: response.status == 401):
            held[0].continue_()
        page.evaluate("() => new Promise(requestAnimationFrame)")
        expect(page.locator("#token-form")).to_be_hidden()
        expect(page.get_by_text("The token was refused")).to_be_hidden()


# --- who can use it -----------------------------------------------------------------------------------------------


def faults(page: Page) -> list[str]:
    """Return what axe finds that is serious or critical, of what has come to rest: what still appears is pale."""
    expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    page.evaluate("() => Promise.allSettled(document.getAnimations().map((each) => each.finished))")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_FILE_PATH.read_text())
    report = page.evaluate("() => axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in report["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def faults_in_both_schemes(page: Page) -> list[str]:
    """Return what is at fault in light or dark colors."""
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {fault}" for fault in faults(page)]
    return found


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_keeps_people_out(browser: Browser, served: Server, viewport: Any) -> None:
    """Contrast, labels, roles, focus: at the start, with results, boxes and heatmaps, and with the comparison open."""
    with opened(browser, viewport=viewport) as page:
        page.goto(address_of(served))
        expect(page.locator("#hits .hit").first).to_be_visible()
        assert faults_in_both_schemes(page) == []

        ask(page)
        draw(page, (0.1, 0.2, 0.9, 0.9))
        expect(page.locator("#hits .mark").first).to_be_visible()
        assert faults_in_both_schemes(page) == []
        page.locator("#hits .match").first.click()
        expect(page.locator("#match-factors button").first).to_be_visible()
        assert faults_in_both_schemes(page) == []


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    """From a small telephone to a wide screen; the first result is not far below the query."""
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    ask(page)
    draw(page, (0.1, 0.2, 0.9, 0.9))
    expect(page.locator("#hits .mark").first).to_be_visible()

    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        # waited for: the answer to the box may be taking the place of the first one
        page.wait_for_function(
            """width => {
                const first = document.querySelector("#hits .hit")?.getBoundingClientRect()
                return innerWidth === width && first !== undefined && first.height > 0 && first.top < 900
            }""",
            arg=width,
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        beyond = page.evaluate(
            """() => [...document.querySelectorAll("#query, #results, #options, .hit, .factor, .editor")].flatMap(
                (part) => [...part.querySelectorAll("button, input, select, p")]
                    .filter((inner) => inner.getBoundingClientRect().right > part.getBoundingClientRect().right + 1)
                    .map((inner) => inner.id || inner.className || inner.textContent)
            )"""
        )
        assert (width, beyond) == (width, [])


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_moves_when_a_box_loses_the_focus(browser: Browser, served: Server, viewport: Any) -> None:
    """What is below would move away between press and release, and would not be pressed."""
    with opened(browser, viewport=viewport) as page:
        page.goto(address_of(served))
        ask(page)
        draw(page, (0.1, 0.2, 0.9, 0.9))
        page.get_by_role("button", name="Add box").focus()
        apart = page.locator("#results-title").bounding_box()

        page.locator(".region").focus()

        assert page.locator("#results-title").bounding_box() == apart


def test_the_keyboard_reaches_everything(page: Page) -> None:
    """Each stop is seen: Tab leads through picker, boxes, factors and options to the results."""
    ask(page)
    expect(page.locator("#factor-list .show").first).to_be_visible()
    page.locator(".skip").focus()
    seen = list[str]()
    for _ in range(80):
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outlined = page.evaluate(
            """() => {
                const style = getComputedStyle(document.activeElement);
                return style.outlineStyle !== "none" || style.boxShadow !== "none";
            }"""
        )
        assert outlined, seen[-1]
        if seen[-1] == "match":
            break
        page.keyboard.press("Tab")

    assert {"choose", "random", "stored", "add-box", "show", "keep", "descriptor", "filter", "match"} <= set(seen)


def test_a_screen_reader_hears_what_happened(page: Page) -> None:
    """The number of results, then of boxes."""
    heard = page.locator("#announcer")
    ask(page)

    expect(heard).to_contain_text("Boxes on 8 results")


def test_pictures_for_the_readme(browser: Browser, tmp_path: Path) -> None:
    """The page on photographs that may be shown: a search by a box, and what matched."""
    shown = [path for path in INDEXED_PHOTOGRAPHS if path.stem in ("astronaut", "chelsea", "coffee", "rocket")]
    index_paths(shown, tmp_path / "shown.ww")
    collage = Image.new("RGB", (1000, 500), "white")
    for place, path in enumerate(shown[1:3]):
        collage.paste(Image.open(path).convert("RGB").resize((500, 500)), (500 * place, 0))
    collage.save(tmp_path / "chelsea-and-coffee.png")
    with (
        running(plain(tmp_path / "shown.ww")) as server,
        opened(browser, viewport={"width": 1200, "height": 760}) as page,
    ):
        page.goto(address_of(server))
        ask(page, tmp_path / "chelsea-and-coffee.png")
        draw(page, (0.02, 0.05, 0.48, 0.97))
        expect(names(page).first).to_have_text("chelsea.png")
        expect(page.locator("#hits .mark").first).to_be_visible()
        expect(page.locator("#hits .frame.here")).to_have_count(4)
        shot(page, "page.jpg")

        page.locator("#hits .match").first.click()
        expect(page.locator("#match-factors button").first).to_be_visible()
        expect(page.locator("#match-pictures .frame.here")).to_have_count(2)
        page.locator("#match-facts").evaluate("facts => facts.remove()")  # where the files lie on this machine
        shot(page, "matched.jpg")
