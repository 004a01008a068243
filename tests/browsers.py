"""The headless browser that tests drive, found on the system or in Playwright's own folder."""

import shutil
from pathlib import Path

import pytest

ARGUMENTS = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"]


def browser_path(own: str) -> str:
    """A system browser, or Playwright's own."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    if Path(own).is_file():
        return own
    pytest.fail(
        "no browser: install one with `.venv/bin/playwright install --with-deps chromium`, or your system's chromium"
    )
