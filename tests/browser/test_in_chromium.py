"""The page in a real browser: typed into, clicked, dropped onto, gone back in."""

import json
import re
import shutil

import pytest
from site_of_index import Stripes, ask, copied, make_index, serving

from mhcvse_jax.encoders import ENCODERS
from mhcvse_jax.indexing.reranking import Reranker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.first_python,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here; apt-get install chromium"),
]

playwright.expect.set_options(timeout=120_000)  # of a machine that has other work

MARKUP = "<img src=x onerror=\"document.title='run'\"> 'quoted' & more"
DROP = """async ([address, type]) => {
  const picture = await (await fetch(address)).blob();
  const dropped = new DataTransfer();
  dropped.items.add(new File([picture], "dropped.jpg", { type }));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def index(finished, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "stripes", Stripes)
        yield make_index(finished[0], tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def address(index, tmp_path_factory):
    index = copied(index, tmp_path_factory.mktemp("marked") / "index")
    (records,) = index.directory.glob("*_pictures.jsonl")
    shows = f'"shows": {json.dumps([f"<b>thing</b> {region}" for region in range(5)])}'
    text = records.read_text().replace('"captions": ["', f'"captions": [{json.dumps(MARKUP)}, "')
    records.write_text(text.replace('"shows": null', shows))
    with serving(type(index).open(index.directory, index.model)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """A page whose every request and every message is seen: none may go elsewhere, none may be an error."""
    context = chromium.new_context(viewport={"width": 1100, "height": 800})
    page, wrong = context.new_page(), []
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if is_error(message) else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else wrong.append(request.url),
    )
    page.goto(address)
    playwright.expect(page.locator("#status")).to_contain_text("Describe what you look for in 20 pictures")
    yield page
    assert not wrong
    context.close()


def is_error(message):
    """What the server refuses in a sentence is on the page; the browser logs it all the same."""
    return message.type == "error" and "status of 400" not in message.text


def search(page, text):
    page.fill("#query", text)
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#status")).to_contain_text(f"for “{text}”")


def files(page):
    return page.locator("#hits .frame").evaluate_all("frames => frames.map(frame => frame.dataset.name)")


def test_type_see_click_see_boxes_go_back(page):
    search(page, "a red circle xyzzy")
    playwright.expect(page.locator("#status")).to_contain_text("does not know “xyzzy”")
    playwright.expect(page.locator("#hits li")).to_have_count(20)
    assert page.locator("#hits img").first.evaluate(
        "image => image.complete && image.naturalWidth > 0 || new Promise(done => image.onload = () => done(true))"
    )
    scores = [float(text) for text in page.locator("#hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)

    page.locator("#amount").fill("8")
    assert page.locator("#hits li:visible").count() == 8

    page.locator("#hits .open").nth(1).click()
    words = page.locator("#words .chip")
    playwright.expect(words).to_have_text(["all words", "a", "red", "circle", "xyzzy"])
    playwright.expect(page.locator("#words .unknown")).to_have_text(["xyzzy"])
    playwright.expect(page.locator("#views .chip")).to_have_text(["likeness", "head 1", "head 2"])
    seen = set()
    for word in range(5):
        words.nth(word).click()
        assert page.locator("#boxes rect").count() >= 1
        seen.add(page.evaluate("document.querySelector('#shade').toDataURL()"))
    assert len(seen) > 1  # words are seen in different places
    page.locator("#views .chip").nth(1).click()
    playwright.expect(page.locator("#says")).to_contain_text("head 1")
    assert page.locator("#boxes rect").count() <= 2  # from where it looks, and where to

    page.go_back()
    playwright.expect(page.locator("#picture")).to_be_hidden()
    assert page.locator("#hits li:visible").count() == 8
    page.go_back()
    playwright.expect(page.locator("#hits li")).to_have_count(0)
    page.go_forward()
    playwright.expect(page.locator("#hits li")).to_have_count(20)


def test_the_light_falls_on_the_box_that_is_most_alike(page, address):
    search(page, "a red circle")
    page.locator("#hits .open").first.click()
    page.locator("#words .chip", has_text="circle").click()
    place = re.search(r"picture=(\d+)", page.url).group(1)
    found = page.request.get(f"{address}api/explain?picture={place}&q=a+red+circle").json()
    cosines = found["cosines"][found["words"].index("circle")]
    left, top, right, bottom = found["boxes"][cosines.index(max(cosines))]
    box = page.locator("#boxes rect.first")
    for name, value in (("x", left), ("y", top), ("width", right - left), ("height", bottom - top)):
        assert float(box.get_attribute(name)) == pytest.approx(value, abs=0.01)
    playwright.expect(page.locator("#shows span").first).to_have_text(f"<b>thing</b> {cosines.index(max(cosines))}")
    width, height = found["size"]
    middle = [(left + right) / 2 / width, (top + bottom) / 2 / height]
    darkness = page.evaluate(
        """([x, y]) => { const shade = document.querySelector("#shade");
        return shade.getContext("2d").getImageData(x * shade.width, y * shade.height, 1, 1).data[3]; }""",
        middle,
    )
    assert darkness == 0


def test_drop_a_picture_and_more_like_it(page, address):
    page.evaluate(DROP, [f"{address}pictures/3", "image/jpeg"])
    playwright.expect(page.locator("#status")).to_contain_text("like this one")
    playwright.expect(page.locator("#asked-words li")).to_have_count(3)
    dropped = files(page)
    assert len(dropped) == 20
    page.locator("#hits .like").first.click()
    playwright.expect(page.locator("#hits li")).to_have_count(19)
    page.go_back()
    playwright.expect(page.locator("#hits li")).to_have_count(20)
    assert files(page) == dropped

    page.evaluate(DROP, [f"{address}page.css", "text/css"])
    playwright.expect(page.locator("#status.error")).to_have_text("dropped.jpg is not a picture.")
    page.set_input_files("#upload", {"name": "cut.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n"})
    playwright.expect(page.locator("#status.error")).to_contain_text("not a whole picture")


def test_captions_are_text(page):
    search(page, "a red circle")
    playwright.expect(page.locator("#hits .caption").first).to_have_text(MARKUP)
    assert page.locator("#hits img[src=x]").count() == 0
    page.locator("#hits .open").first.click()
    playwright.expect(page.locator("#captions li").first).to_have_text(MARKUP)
    assert page.title() != "run"


def test_the_keyboard_is_enough(page):
    search(page, "a red circle")
    page.keyboard.press("Tab")  # the button
    while not page.evaluate("document.activeElement.matches('#hits .open')"):
        page.keyboard.press("Tab")
    first = files(page)[:2]
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#picture-name")).to_have_text(first[0])
    playwright.expect(page.locator("#words .chip").first).to_be_visible()
    page.locator("#picture-close").focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#picture-name")).to_have_text(first[1])
    playwright.expect(page.locator("#words .chip").first).to_be_visible()
    page.locator("input[name=word]").first.focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#says")).to_contain_text("“a”")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#picture")).to_be_hidden()


def test_the_attention_of_the_model_that_re_ranks_is_shown(chromium, index, pair_model):
    with serving(index, reranker=Reranker(pair_model[0], None)) as port, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/")
        search(page, "a red circle")
        playwright.expect(page.locator("#status")).to_contain_text("put in order by cross_attention")
        page.locator("#hits .open").first.click()
        page.locator("#words .chip", has_text="circle").click()
        ways = page.locator("#pair-views fieldset")
        playwright.expect(ways).to_have_count(2)
        chips = ["all heads", *(f"layer {layer}, head {head}" for layer in (1, 2) for head in (1, 2))]
        place = re.search(r"picture=(\d+)", page.url).group(1)
        seen = ask(port, "/api/explain", picture=place, q="a red circle")[2]
        word = seen["pair"]["words"].index("circle")
        for way, name in enumerate(("text_to_image", "image_to_text")):
            playwright.expect(ways.nth(way).locator(".chip")).to_have_text(chips)
            ways.nth(way).locator(".chip").nth(3).click()  # layer 2, head 1
            playwright.expect(page.locator("#says")).to_contain_text("“circle”")
            map = seen["pair"]["maps"][name][2]
            looks = map[word] if name == "text_to_image" else [row[word] for row in map]
            left, top, right, bottom = seen["boxes"][looks.index(max(looks))]
            box = page.locator("#boxes rect.first")
            for side, value in (("x", left), ("y", top), ("width", right - left), ("height", bottom - top)):
                assert float(box.get_attribute(side)) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(chromium, address, scheme):
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{address}?q=a+red+circle&picture=3")
    playwright.expect(page.locator("#words .chip").first).to_be_visible()
    for is_open in (True, False):
        assert page.locator("#picture").is_visible() == is_open
        assert (
            page.evaluate(
                "Math.max(document.documentElement.scrollWidth, document.querySelector('#picture').scrollWidth)"
            )
            <= 360
        )
        if is_open:
            page.locator("#picture-close").click()
            playwright.expect(page.locator("#picture")).to_be_hidden()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground).group()) < 100) == (scheme == "dark")
    context.close()


def test_pictures_that_are_gone_are_named(chromium, address):
    with chromium.new_context() as context:
        page = context.new_page()
        page.route("**/thumbnails/*", lambda route: route.fulfill(status=404))
        page.goto(f"{address}?q=a+red+circle")
        missing = page.locator("#hits .missing .frame")
        playwright.expect(missing).to_have_count(20, timeout=120_000)
        shown = missing.first.evaluate("frame => getComputedStyle(frame, '::before').content")
        assert shown == f'"{missing.first.get_attribute("data-name")}"'
