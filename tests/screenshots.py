"""Pictures of every page for the guide: `python tests/screenshots.py` writes docs/guide/app/."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browsers import ARGUMENTS, browser_path
from playwright.sync_api import sync_playwright
from served import PATIENCE, click_cell, maps, open_page, served, settle

SHIPPED = Path(__file__).parents[1] / "checkpoints"
GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "app"
DIGITS = "a=digits-entropy&b=digits-vit"
VIEWS = {
    "overview": ("", "Overview"),
    "compare": ("compare?a=cifar10-conv&b=cifar10-vit&layer=3&head=0&offset=-1.1", "Compare"),
    "attention": ("attention?a=digits-conv&b=digits-vit&image=7&layer=2&head=1&target=3.4", "Attention"),
    "keys": ("keys?a=digits-conv&b=digits-entropy&image=7&layer=1&head=2&place=3.3", "Keys"),
    "knockout": (f"knockout?{DIGITS}&layer=2&head=6", "Knock-out"),
    "decoders": ("decoders", "Decoders"),
    "pruning": (f"pruning?{DIGITS}&by=magnitude,taylor,random&keep=1,2,4,8", "Pruning"),
    "training": ("training?runs=digits-conv,digits-entropy", "Training"),
    "analyses": ("analyses?a=digits-conv&b=digits-vit&analysis=match", "Analyses"),
}


def take(page, address, name, path, title):
    """One page, with what it measures."""
    open_page(page, address, path, title)
    if name == "compare":
        page.get_by_text("averaged over 32 images").wait_for()
        click_cell(page, 0, 3, 0, -1, 1)
    if name in ("attention", "keys", "knockout"):
        maps(page)
    if name == "keys":
        page.get_by_role("button", name="Look through the test images").first.click()
        page.get_by_text("360 of 360").first.wait_for()
    if name == "knockout":
        page.get_by_role("button", name="Measure", exact=True).click()
        page.get_by_role("cell", name="random 5").wait_for()
    if name in ("pruning", "training", "analyses"):
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
    if name in ("pruning", "analyses"):
        page.get_by_role("button", name="Cancel").first.wait_for(state="hidden")
    page.wait_for_timeout(1500)
    settle(page)
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": max(700, min(int(height) + 10, 1500))})
    page.wait_for_timeout(1200)
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    page.wait_for_timeout(300)
    page.screenshot(path=str(GUIDE / f"{name}.png"))
    page.set_viewport_size({"width": 1280, "height": 900})


def main(names):
    """Take the pages of these names, or all."""
    GUIDE.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as jobs:
        path = browser_path(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        with served(SHIPPED, jobs=Path(jobs)) as (address, _):
            for name, (link, title) in VIEWS.items():
                if not names or name in names:
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    page.set_default_timeout(PATIENCE)
                    take(page, address, name, link, title)
                    page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
