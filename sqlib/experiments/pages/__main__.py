"""``python -m sqlib.experiments.pages NAME...`` makes page records and writes them into the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sqlib.experiments.pages import PAGES, make

for name in sys.argv[1:] or PAGES:
    path = Path(__file__).parent / "records" / f"{name}.json"
    path.write_text(json.dumps(make(name), indent=1) + "\n", "utf-8")
    print(f"wrote {path}")
