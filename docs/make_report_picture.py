"""Draw the picture of a report that README.md shows: python docs/make_report_picture.py (needs Chromium and Pillow)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parent / "figures" / "report.png"
DATA = "customers"
SIZE = "960,2010"  # down to the reliability diagram


def main() -> None:
    """Fit, open the page, and keep what a window shows of it, in 255 colours."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium here: the picture is drawn by a browser")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "crossent", "fit", DATA], cwd=folder, check=True, capture_output=True)
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}"]
        options += [f"--user-data-dir={folder}/profile", f"--screenshot={shot}"]
        page = (Path(folder) / "out" / "report.html").as_uri()
        subprocess.run([browser, *options, page], check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(255).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
