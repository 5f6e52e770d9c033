"""The README's picture of docs/play.html, after 28 steps.

    python benchmarks/play_picture.py        docs/pictures/play.png anew, with Chromium and Selenium
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "play.png"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
AFTER_28_STEPS = """
play(false);
restart(start);
for (let step = 0; step < 28; step++) stepAll();
const wait = () => {
  const drawn = panels.every(({ agent }) => agent.valueMap) && !dirty;
  drawn ? arguments[0]() : setTimeout(wait, 50);
};
wait();
"""


@contextlib.contextmanager
def chromium(width=1280, height=1000):
    """A headless Chromium of the system's, driven by Selenium, as a `with` block.

    Raises FileNotFoundError where the browser or its driver is missing.
    """
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        raise FileNotFoundError("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            resize(browser, width, height)
            yield browser
        finally:
            browser.quit()


def resize(browser, width, height):
    """Give the page so many pixels; a narrow one is a phone's."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})


def main():
    try:
        with chromium(height=666) as browser:
            browser.get(f"{(ROOT / 'docs' / 'play.html').as_uri()}#en")
            browser.execute_async_script(AFTER_28_STEPS)
            browser.save_screenshot(str(PICTURE))
    except FileNotFoundError as error:
        sys.exit(f"play_picture.py: {error}")
    print(f"Saved {PICTURE}")


if __name__ == "__main__":
    main()
