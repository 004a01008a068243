"""A page: everything is escaped, and the page draws its figures in a browser without any request."""

import plotly.graph_objects as go
from browsers import ARGUMENTS, browser_path
from playwright.sync_api import sync_playwright

from analyses.page import Section, write_page
from analyses.result import Table


def test_report_opens_without_a_network(tmp_path):
    figure = go.Figure(go.Bar(x=["a"], y=[1]))
    section = Section("A < B", "text & more", Table(["k"], [["<1>"]]), [("one", figure), ("two", figure)], "a note")
    path = write_page(tmp_path / "deep" / "index.html", "Title", "Lead", [section, section], "Footer")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(playwright.chromium.executable_path), args=ARGUMENTS
        )
        page = browser.new_page()
        requests, problems = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 4")
        assert page.locator("h2").first.inner_text() == "A < B"
        assert page.locator("td").first.inner_text() == "<1>"
        browser.close()
    assert not problems
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
