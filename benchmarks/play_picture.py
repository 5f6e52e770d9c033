"""The README's picture of docs/play.html, four seconds after it is opened.

    python benchmarks/play_picture.py        image/play.png anew, with Chromium
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "image" / "play.png"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
         "--window-size=1280,795", "--virtual-time-budget=4000"]


def main():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("play_picture.py: needs Chromium (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [chromium, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={PICTURE}",
             f"{(ROOT / 'docs' / 'play.html').as_uri()}#en"],
            check=True, capture_output=True, timeout=120,
        )
    print(f"Saved {PICTURE}")


if __name__ == "__main__":
    main()
