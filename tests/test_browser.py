"""Every page in a real headless browser, one interaction each, through a server started as `aft-lens app` does."""

import io
import os
import re
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from browsers import ARGUMENTS, browser_path
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from aft_lens.checkpoint import list_checkpoints, save_checkpoint
from aft_lens.models import create_model
from app import serve

SHIPPED = Path(__file__).parents[1] / "checkpoints"
SCREENSHOTS = os.environ.get("AFT_LENS_SCREENSHOTS")
"""A folder to leave pictures of every page in, to be looked at."""
PATIENCE = 60_000
"""Milliseconds a page may take on a busy machine."""
DIGITS = {
    "name": "digits",
    "classes": [str(i) for i in range(10)],
    "mean": [0.3],
    "std": [0.37],
    "in_chans": 1,
    "img_size": 8,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The shipped checkpoints, with small untrained ones where none ship."""
    if list_checkpoints(SHIPPED):
        return SHIPPED
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for name, model in {
        "digits-single": create_model("aft_conv_digits", position_bias="single"),
        "digits-entropy": create_model("aft_conv_digits"),
        "digits-vit": create_model("vit_digits"),
    }.items():
        rows = [{"epoch": float(i), "train_loss": 2.0 - i, "val_accuracy": i / 2} for i in range(2)]
        save_checkpoint(folder / name, model, data=DIGITS, recipe={"epochs": 2}, seed=0, metrics=rows)
    return folder


@pytest.fixture(scope="module")
def address(root):
    port = serve.free_port()
    process = serve.start([root], port)
    url = serve.url("localhost", port)
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while not _healthy(url):
            assert process.poll() is None, "the server ended before it answered"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.2)
        yield url
    finally:
        serve.stop(process)


def _healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        path = browser_path(playwright.chromium.executable_path)
        instance = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield instance
        instance.close()


@pytest.fixture
def page(browser, address):
    """A page that fails its test on a script error or on any request to another host."""
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    problems, foreign = [], []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: foreign.append(request.url) if _foreign(request.url, address) else None)
    yield tab
    tab.close()
    assert not problems
    assert not foreign


def _foreign(url, address):
    return not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def open_page(page: Page, address: str, path: str, title: str) -> None:
    page.goto(f"{address}/{path}")
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    settle(page)


def settle(page: Page) -> None:
    """Wait until the script has run and every chart is drawn."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def picture(page: Page, name: str) -> None:
    """Leave a picture of the whole page if a folder for them is set."""
    if SCREENSHOTS:
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": 1400, "height": max(900, min(int(height) + 10, 2600))})
        page.wait_for_timeout(1500)
        settle(page)
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


def click_cell(page: Page, chart: int, x: float, y: float) -> None:
    """Click at a share (x, y) of a chart's plot area."""
    plot = page.locator(".js-plotly-plot").nth(chart)
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    place = box["x"] + x * box["width"], box["y"] + y * box["height"]
    page.mouse.move(*place)
    page.wait_for_timeout(300)
    page.mouse.click(*place)


POINTS = """chart => {
    const plot = document.querySelectorAll('.js-plotly-plot')[chart], layout = plot._fullLayout;
    const box = plot.getBoundingClientRect(), cells = plot._fullData[1].customdata, points = plot.calcdata[1];
    return points.filter((_, i) => i % 97 == 5).map(({x, y, i}) => [
        box.left + layout.xaxis._offset + layout.xaxis.c2p(x),
        box.top + layout.yaxis._offset + layout.yaxis.c2p(y),
        Array.from(cells[i]).slice(0, 4),
    ]);
}"""
"""Where some cells of a chart are on the page, and their layer, head, Δy and Δx."""


def test_a_link_to_a_page_may_be_the_first_request(page, address):
    open_page(page, address, "training", "Training")
    expect(page.get_by_role("link", name="Compare")).to_be_visible()


def test_compare_click_reads_an_offset(page, address):
    open_page(page, address, "", "Compare")
    expect(page.locator(".js-plotly-plot")).to_have_count(5)
    heading = page.get_by_role("heading", name=re.compile("^Layer"))
    before = heading.inner_text()
    click_cell(page, 0, 0.93, 0.93)
    expect(heading).not_to_have_text(before)
    expect(page).to_have_url(re.compile("cell="))
    settle(page)
    after = heading.inner_text()
    picture(page, "compare")
    page.reload()
    expect(heading).to_have_text(after)
    page.get_by_role("radio", name="Each model").click()
    expect(page).to_have_url(re.compile("scale=Each"))
    settle(page)


def test_the_pointer_reads_the_cell_under_it(page, address):
    open_page(page, address, "", "Compare")
    plot = page.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    cells = page.evaluate(POINTS, 0)
    assert len(cells) > 10
    for x, y, (layer, head, dy, dx) in cells:
        page.mouse.move(round(x), round(y))
        expect(plot.locator(".hovertext")).to_contain_text(f"layer {layer}, head {head}Δy {dy}, Δx {dx}")
    page.mouse.click(round(x), round(y))
    expect(page).to_have_url(re.compile(rf"cell={layer}\.{head}\.{dy}\.{dx}\b"))


def test_keys_of_a_sample_and_an_upload(page, address):
    open_page(page, address, "keys?i=5", "Keys")
    expect(page.locator(".js-plotly-plot")).to_have_count(10)
    picture(page, "keys")
    page.get_by_role("radio", name="Upload").click()
    upload = page.locator("input[type=file]")
    upload.wait_for(state="attached")
    upload.set_input_files({"name": "note.png", "mimeType": "image/png", "buffer": b"no image at all"})
    expect(page.get_by_test_id("stAlert")).to_contain_text("not an image")
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((120, 90)).convert("RGBA").save(buffer, "PNG")
    upload.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    expect(page.locator(".js-plotly-plot")).to_have_count(10)
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    page.get_by_role("radio", name="Test sample").click()
    expect(page.get_by_role("slider")).to_be_visible()
    settle(page)
    page.get_by_role("radio", name="Upload").click()
    expect(page.get_by_text("Still own.png")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(10)


def test_attention_in_its_own_unit(page, address):
    open_page(page, address, "attention", "Attention")
    expect(page.locator(".js-plotly-plot")).to_have_count(3)
    picture(page, "attention")
    page.get_by_test_id("stSelectbox").nth(2).locator("input").click()
    page.get_by_role("option", name="Attention", exact=True).click()
    expect(page).to_have_url(re.compile("unit=Attention"))
    expect(page.get_by_text("mean attention").first).to_be_visible()
    settle(page)


def test_pruning_ladder_at_another_k(page, address):
    open_page(page, address, "pruning", "Pruning")
    expect(page.get_by_test_id("stMetricValue")).to_have_count(4)
    settle(page)
    parity = page.get_by_test_id("stMetricValue").nth(1)
    assert float(parity.inner_text()) <= 1e-5
    picture(page, "pruning")
    page.get_by_role("slider").first.press("ArrowRight")
    expect(page).to_have_url(re.compile("keep=2"))
    expect(page.locator("code")).to_contain_text("--keep 2")
    settle(page)


def test_training_curves_of_another_run(page, address, root):
    open_page(page, address, "training", "Training")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    picture(page, "training")
    page.get_by_test_id("stSelectbox").locator("input").click()
    name = sorted(path.name for path in list_checkpoints(root))[0]
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.get_by_test_id("stMetricValue").first).to_be_visible()
    settle(page)


def test_checkpoints_stay_chosen_across_pages(page, address):
    open_page(page, address, "?b=digits-entropy", "Compare")
    page.get_by_role("link", name="Pruning").click()
    expect(page.get_by_role("heading", name="Pruning", exact=True)).to_be_visible()
    settle(page)
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile("b=digits-entropy"))
