"""A server started as `aft-lens app` does, and what tests and measurements do to its pages in a browser."""

import time
import urllib.request
from contextlib import contextmanager

from playwright.sync_api import expect

from app import serve

PATIENCE = 180_000
"""Milliseconds a page may take on a busy machine."""
PLACE = """(root, [pane, layer, head, y, x, where]) => {
    const box = (canvas) => canvas.getBoundingClientRect();
    const hash = root.dataset.ready.split(' ')[pane], model = window.__aftLensMaps.get(hash);
    const low = (side) => model.by_offset ? -Math.floor(model[side] / 2) : 0;
    const [row, column] = [y - low('rows') + 0.5, x - low('columns') + 0.5];
    if (where === 'map') {
        const canvas = root.querySelectorAll('.side canvas')[pane], {pad, cell} = canvas.shape;
        return [box(canvas).left + pad + column * cell, box(canvas).top + row * cell];
    }
    const grid = root.state.grids[pane], canvas = root.querySelectorAll('.pane canvas')[pane];
    const tile = model.tiles.findIndex((one) => one[0] === layer && one[1] === head);
    const step = grid.tile + grid.gap, across = tile % grid.columns, down = Math.floor(tile / grid.columns);
    return [
        box(canvas).left + grid.margin + across * step + column / model.columns * grid.tile,
        box(canvas).top + 16 + down * step + row / model.rows * grid.tile,
    ];
}"""
"""Where a cell of a pane is on the page."""


@contextmanager
def served(root, **options):
    """The address of a server over a folder of checkpoints; its process ends with the block."""
    port = serve.free_port()
    process = serve.start([root], port, **options)
    url = serve.url("localhost", port)
    try:
        end = time.monotonic() + PATIENCE / 1000
        while not _healthy(url):
            assert process.poll() is None, "the server ended before it answered"
            assert time.monotonic() < end, "the server did not answer"
            time.sleep(0.1)
        yield url, process
    finally:
        serve.stop(process)


def _healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def settle(page):
    """Wait until the script has run."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def open_page(page, address, path, title):
    """Follow a link and wait for the page of that title."""
    page.goto(f"{address}/{path}")
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=PATIENCE)
    settle(page)


def maps(page):
    """The drawn maps of a page."""
    found = page.locator(".maps[data-ready]")
    found.wait_for(state="attached", timeout=PATIENCE)
    return found


def cell_place(page, pane, layer, head, y, x, where="tile"):
    """Where a cell is in the window, once it has been scrolled there."""
    root = maps(page)
    place = root.evaluate(PLACE, [pane, layer, head, y, x, where])
    height = page.viewport_size["height"]
    if not 60 < place[1] < height - 10:
        page.get_by_test_id("stMain").evaluate("(main, by) => main.scrollBy(0, by)", place[1] - height / 2)
        place = root.evaluate(PLACE, [pane, layer, head, y, x, where])
    return place


def click_cell(page, pane, layer, head, y, x, where="tile"):
    """Click a cell of a pane, in the mosaic or in the enlarged map."""
    page.mouse.click(*cell_place(page, pane, layer, head, y, x, where))
