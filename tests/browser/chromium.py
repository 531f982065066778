"""Finds a Chromium for the browser tests, or fetches one: `make test` runs `python -m tests.browser.chromium`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW: Final = (
    "no Chromium was found: install Debian's or Ubuntu's package (apt-get install chromium), or name one in "
    "PIX2DSLR_TEST_CHROMIUM, or let Playwright fetch its own (.venv/bin/playwright install --with-deps chromium)"
)


def find() -> str | None:
    """Return the path of a Chromium: the one that is named, the system's, or Playwright's own; None without any."""
    named = os.environ.get("PIX2DSLR_TEST_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def main() -> None:
    """Say which there is; without any, fetch Playwright's, and say how to install one where that fails."""
    path = find()
    if path is None:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False, timeout=600)
        path = find()
    print(f"browser tests run in {path}" if path else f"browser tests are skipped: {HOW}")


if __name__ == "__main__":
    main()
