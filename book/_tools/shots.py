"""Screenshots of every page at 1280 and 390 pixels, to be looked at: ``shots.py OUTDIR [PAGE ...]``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"


def main(out: Path, names: list[str]) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("chromium was not found: apt install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    out.mkdir(parents=True, exist_ok=True)
    pages = [*sorted(HTML.glob("book/*.html")), *sorted(HTML.glob("notebooks/*.html"))]
    for page in pages:
        if names and not any(name in page.name for name in names):
            continue
        for width, height in ((1280, 5000), (390, 7000)):
            target = out / f"{page.stem}-{width}.png"
            options = [f"--window-size={width},{height}", f"--screenshot={target}", "--hide-scrollbars"]
            more = [
                "--virtual-time-budget=8000",
                "--headless",
                "--disable-gpu",
                "--allow-file-access-from-files",
            ]
            command = [chromium, *sandbox, *more, *options, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True)
            print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/shots"), sys.argv[2:])
