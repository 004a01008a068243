"""Every page in a real headless browser, at two sizes and in both themes, and what visitors do there."""

import io
import json
import re
from xml.etree import ElementTree

import pytest
from browsers import ARGUMENTS, browser_path
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from served import PATIENCE, cell_place, click_cell, maps, open_page, served, settle
from test_app import SHIPPED

PAGES = ("Overview", "Compare", "Attention", "Keys", "Knock-out", "Pruning", "Training", "Analyses")
PATHS = {"Overview": "", "Knock-out": "knockout"}
PAIR = "a=digits-conv&b=digits-vit"
CLIPPED = """() => [...document.querySelectorAll('[data-testid=stMain] *')].filter((element) => {
    const style = getComputedStyle(element);
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return text && style.overflowX === 'hidden' && style.textOverflow !== 'ellipsis' && style.clipPath === 'none'
        && element.scrollWidth > element.clientWidth + 2 && element.clientWidth > 0 && style.position !== 'absolute';
}).map((element) => element.innerText.slice(0, 60))"""
"""Texts that their own boxes cut off."""
OVERLAPPING = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => {
    const words = [...plot.querySelectorAll('.main-svg text')].filter((text) => text.textContent.trim());
    const boxes = words.map((text) => text.getBoundingClientRect()), frame = plot.getBoundingClientRect();
    const over = words.flatMap((text, i) => boxes.slice(i + 1).flatMap((other, j) => {
        const width = Math.min(boxes[i].right, other.right) - Math.max(boxes[i].left, other.left);
        const height = Math.min(boxes[i].bottom, other.bottom) - Math.max(boxes[i].top, other.top);
        return width > 2 && height > 4 ? [`${text.textContent} | ${words[i + 1 + j].textContent}`] : [];
    }));
    const out = words.filter((_, i) => boxes[i].top < frame.top - 1 || boxes[i].right > frame.right + 1);
    return [...over, ...out.map((text) => `${text.textContent} leaves its figure`)];
})"""
"""Words of figures that lie over others or reach out of their figure."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(SHIPPED, jobs=tmp_path_factory.mktemp("jobs")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        path = browser_path(playwright.chromium.executable_path)
        instance = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield instance
        instance.close()


@pytest.fixture
def page(browser, address):
    with watched(browser, address) as tab:
        yield tab


class watched:
    """A page that fails its test on a script error or on any request to another host."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.address, self.problems = address, []

    def __enter__(self):
        tab = self.context.new_page()
        tab.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        own = (self.address, self.address.replace("http", "ws"), "data:", "blob:", "file:")
        tab.on("request", lambda request: request.url.startswith(own) or self.problems.append(request.url))
        return tab

    def __exit__(self, *_):
        self.context.close()
        assert not self.problems


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1280, "dark")])
def test_every_page_is_whole(browser, address, width, theme):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    with watched(browser, address, **options) as tab:
        for title in PAGES:
            open_page(tab, address, f"{PATHS.get(title, title.lower())}?{PAIR}", title)
            if title in ("Compare", "Attention", "Keys", "Knock-out"):
                maps(tab)
            assert tab.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width, title
            assert tab.evaluate(CLIPPED) == [], title
            expect(tab.get_by_test_id("stAlertContentError")).to_have_count(0)
        light = tab.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert (light == "rgb(255, 255, 255)") == (theme == "light")


def test_a_click_reads_a_cell_in_both_models_at_once(page, address):
    open_page(page, address, f"compare?{PAIR}", "Compare")
    heading = page.locator(".reading h4")
    page.mouse.move(*cell_place(page, 0, 2, 5, -3, 2))
    expect(page.locator(".pointer")).to_contain_text("layer 2, head 5, Δy −3, Δx +2")
    told = page.locator(".pointer").inner_text().rpartition(": ")[2]
    click_cell(page, 0, 2, 5, -3, 2)
    expect(heading).to_have_text("Layer 2, head 5, offset Δy −3, Δx +2")
    expect(page.locator(".side .value").first).to_contain_text(told)
    expect(page.locator(".side .value").nth(1)).to_contain_text("layer 2, head 3")
    expect(page).to_have_url(re.compile(r"layer=2&head=5&offset=-3\.2"))


def test_a_link_shows_the_same_tomorrow_and_back_undoes_a_step(page, address):
    open_page(page, address, f"compare?{PAIR}", "Compare")
    expect(page).to_have_url(re.compile("scale=own.*images=256"))
    click_cell(page, 0, 1, 1, 0, 1)
    expect(page).to_have_url(re.compile("layer=1&head=1"))
    settle(page)
    page.get_by_role("radio", name="Signed log").click()
    expect(page).to_have_url(re.compile("scale=log"))
    settle(page)
    link = page.url
    page.go_back()
    expect(page).to_have_url(re.compile("layer=1&head=1.*scale=own"))
    expect(page.get_by_role("radio", name="Each head")).to_be_checked()
    page.go_back()
    expect(page.locator(".reading h4")).to_contain_text("Layer 0, head 0")
    page.goto(link)
    expect(page.locator(".reading h4")).to_have_text("Layer 1, head 1, offset Δy +0, Δx +1")
    expect(page.get_by_role("radio", name="Signed log")).to_be_checked()


def test_what_cannot_be_is_said_and_put_right(page, address):
    open_page(page, address, f"compare?{PAIR}&layer=77&scale=loud&offset=90.90&nothing=1", "Compare")
    for words in ("scale must be one of", "layer 77, head 0 is in neither", "offset 90, 90 lies outside", "nothing"):
        expect(page.get_by_test_id("stAlert").filter(has_text=words)).to_be_visible()
    expect(page).to_have_url(re.compile(r"layer=2&head=0&offset=0\.0.*scale=own"))
    assert "nothing" not in page.url
    open_page(page, address, "compare?a=gone", "Compare")
    expect(page.get_by_test_id("stAlert").filter(has_text="gone")).to_be_visible()
    maps(page)


def test_choices_reach_every_page(page, address):
    open_page(page, address, f"compare?{PAIR}", "Compare")
    click_cell(page, 0, 1, 6, 0, 0)
    expect(page).to_have_url(re.compile("head=6"))
    settle(page)
    for title in ("Keys", "Attention", "Pruning", "Compare"):
        page.get_by_role("link", name=title).click()
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        expect(page).to_have_url(re.compile("a=digits-conv&b=digits-vit.*layer=1&head=6"))
        settle(page)


def test_keys_of_the_keyboard_move_the_cell(page, address):
    open_page(page, address, f"compare?{PAIR}", "Compare")
    maps(page)
    page.locator(".pane canvas").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".reading h4")).to_have_text("Layer 1, head 1, offset Δy +2, Δx +1")
    expect(page).to_have_url(re.compile(r"layer=1&head=1&offset=2\.1"))
    page.get_by_text("As a table").click()
    expect(page.locator(".maps table").first.locator("tr")).to_have_count(8)
    assert "Layer 1, head 1" in page.locator(".live").inner_text()


def test_maps_are_taken_along_as_they_are_shown(page, address, tmp_path):
    open_page(page, address, f"compare?{PAIR}&layer=1&head=2&offset=1.-1", "Compare")
    told = page.locator(".side .value b").first.inner_text()
    page.get_by_text("Take these maps along").click()
    expect(page.get_by_text("aft-lens bias digits-conv")).to_be_visible()
    expect(page.get_by_text("aft.bias_maps(loaded.model")).to_be_visible()
    files = {}
    for name, button in (
        *((kind, page.get_by_role("button", name=kind, exact=True)) for kind in ("HTML", "JSON", "CSV")),
        ("SVG", page.locator(".tools button", has_text="SVG").first),
    ):  # fmt: skip
        with page.expect_download() as found:
            button.click()
        files[name] = tmp_path / found.value.suggested_filename
        found.value.save_as(files[name])
    row = next(line for line in files["CSV"].read_text().splitlines() if line.startswith("digits-conv,1,2,1,-1,"))
    assert float(row.split(",")[5]) == pytest.approx(float(told), rel=0.01)
    models = json.loads(files["JSON"].read_text())["models"]
    assert [len(one["maps"]) for one in models] == [24, 12]
    assert models[0]["maps"][10]["values"][4][2] == pytest.approx(float(told), rel=0.01)
    assert "digits-conv" in ElementTree.parse(files["SVG"]).getroot()[0].text
    alone = page.context.new_page()
    alone.goto(files["HTML"].as_uri())
    expect(alone.locator(".reading h4")).to_have_text("Layer 1, head 2, offset Δy +1, Δx −1")
    expect(alone.locator(".side .value b").first).to_have_text(told)
    alone.locator(".pane canvas").first.press("ArrowRight")
    expect(alone.locator(".reading h4")).to_have_text("Layer 1, head 2, offset Δy +1, Δx +0")


def test_a_transfer_starts_from_its_page(page, address):
    open_page(page, address, "analyses?a=digits-vit&b=digits-conv&analysis=transfer", "Analyses")
    expect(page.get_by_role("cell", name="blocks.N.mixer.value")).to_be_visible()
    expect(page.get_by_text("aft-lens train --recipe digits-conv --name digits-vit-to-digits-conv")).to_be_visible()
    expect(page.get_by_text("This server shows runs and starts none")).to_be_visible()


def test_heads_are_sorted_matched_and_subtracted(page, address):
    open_page(page, address, "compare?a=digits-conv&b=digits-entropy&sort=strength", "Compare")
    first = maps(page).evaluate("(root) => window.__aftLensMaps.get(root.dataset.ready.split(' ')[0])")
    assert first["peaks"] == sorted(first["peaks"], reverse=True)
    assert len(first["tiles"]) == 24
    page.get_by_role("radio", name="By likeness").click()
    expect(page).to_have_url(re.compile("pair=match"))
    expect(page.locator(".side .value").nth(1)).to_contain_text("likeness")
    settle(page)
    page.get_by_text("Difference").click()
    expect(page.locator(".pane h3").nth(2)).to_have_text("B − A")


def test_effective_attention_follows_the_target(page, address):
    open_page(page, address, f"attention?{PAIR}&target=3.4", "Attention")
    expect(page.locator(".side .value").first).to_contain_text("sums to 1 over patches")
    before = maps(page).get_attribute("data-ready")
    click_cell(page, 1, 0, 0, 6, 1, "map")
    expect(page).to_have_url(re.compile(r"target=6\.1"))
    expect(page.locator(".pane .words").first).to_contain_text("read at row 6, column 1")
    assert maps(page).get_attribute("data-ready") != before
    settle(page)
    page.get_by_role("radio", name="Position alone").click()
    expect(page).to_have_url(re.compile("part=position"))
    settle(page)
    page.get_by_role("button", name="Class token of the ViT").click()
    expect(page.locator(".pane .words").nth(1)).to_contain_text("read at the class token")


def test_keys_of_a_sample_and_an_upload(page, address):
    open_page(page, address, "keys?a=digits-conv&b=digits-single&image=5", "Keys")
    expect(page.locator(".pane .words").first).to_contain_text("says 9")
    page.get_by_role("radio", name="Upload").click()
    upload = page.locator("input[type=file]")
    upload.wait_for(state="attached")
    upload.set_input_files({"name": "note.png", "mimeType": "image/png", "buffer": b"no image at all"})
    expect(page.get_by_test_id("stAlert")).to_contain_text("not an image")
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((120, 90)).convert("RGBA").save(buffer, "PNG")
    upload.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    maps(page)
    page.get_by_role("radio", name="Test image").click()
    expect(page.get_by_role("spinbutton")).to_be_visible()
    settle(page)
    page.get_by_role("radio", name="Upload").click()
    expect(page.get_by_text("Still own.png")).to_be_visible()


def test_test_images_are_evidence(page, address):
    open_page(page, address, "keys?a=digits-conv&b=digits-conv&image=5", "Keys")
    page.get_by_role("button", name="Look through the test images").click()
    expect(page.get_by_text("360 of 360 test images of digits")).to_be_visible()
    page.get_by_text("Wrong predictions alone").click()
    expect(page.get_by_text(re.compile(r"^\d+ of 360 test images"))).not_to_contain_text("360 of 360")
    page.get_by_role("radio", name=re.compile(r"\(wrong\)")).first.click()
    expect(page).not_to_have_url(re.compile("image=5&"))
    settle(page)
    page.get_by_role("button", name="Which pixels does it rest on?").click()
    expect(page.get_by_text("Integrated gradients of the predicted logit")).to_be_visible()


def test_a_head_is_knocked_out_beside_controls(page, address):
    open_page(page, address, f"knockout?{PAIR}&layer=2&head=1", "Knock-out")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_role("cell", name="layer 2, head 1")).to_be_visible()
    expect(page.get_by_role("cell", name="random 5")).to_be_visible()
    page.get_by_role("button", name="Take it along").first.click()
    expect(page.get_by_role("button", name="Add to report")).to_be_visible()


def test_pruning_is_a_curve_and_a_rung(page, address):
    open_page(page, address, "pruning?a=digits-entropy&b=digits-vit&keep=1,4&by=magnitude,random", "Pruning")
    expect(page.get_by_role("cell", name="random")).to_have_count(2)
    expect(page.get_by_test_id("stMetricValue")).to_have_count(4)
    assert float(page.get_by_test_id("stMetricValue").nth(1).inner_text()) <= 1e-5
    expect(page.get_by_text("criteria computed on 180 other images")).to_be_visible()


def test_training_curves_over_each_other_and_the_scrubber(page, address):
    open_page(page, address, "training?runs=digits-conv,digits-vit", "Training")
    expect(page.locator(".js-plotly-plot .legendtext").filter(has_text="digits-vit").first).to_be_visible()
    expect(page.locator(".pane h3")).to_contain_text("digits-conv after epoch")
    before = page.locator(".pane h3").inner_text()
    page.get_by_text("Play", exact=True).click()
    expect(page.locator(".pane h3")).not_to_have_text(before)


@pytest.mark.parametrize("width", [390, 1280])
def test_words_of_figures_are_read_on_any_screen(browser, address, width):
    with watched(browser, address, viewport={"width": width, "height": 900}) as tab:
        for name in ("match", "field", "qk&side=b"):
            open_page(tab, address, f"analyses?{PAIR}&analysis={name}", "Analyses")
            button = tab.get_by_role("button", name="Measure", exact=True)
            figure = tab.locator(".js-plotly-plot .main-svg").first
            expect(button.or_(figure).first).to_be_visible()
            if button.count():
                button.click()
            expect(figure).to_be_visible()
            settle(tab)
            assert tab.evaluate(OVERLAPPING) == [], name
            assert tab.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width


def test_latency_is_paired_or_refused_and_measured_again(page, address):
    open_page(page, address, f"analyses?{PAIR}&analysis=latency", "Analyses")
    page.get_by_role("button", name="Measure", exact=True).click()
    for _ in range(2):
        expect(page.get_by_test_id("stAlert")).to_contain_text(re.compile("faster|no verdict"))
        expect(page.get_by_text("taking turns")).to_be_visible()
        page.get_by_role("button", name="Measure again").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
