"""The set-up cell, the same in every notebook; this script writes it into all of them (``make sync``).

It does nothing where sqlib can be imported. Elsewhere (Colab, Kaggle, a bare Jupyter) it installs sqlib
from the repository and asks pip for exactly the torch and the numpy that are there: exchanging them under a
running kernel breaks the session, and the hosted builds match the hosted drivers. The code that draws a
chapter's figures lies beside it, in ``figures``; Jupyter finds it there, papermill when it is called from
this folder or the one above.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repository import ROOT, repository_url

TEMPLATE = """\
# Set-up: installs sqlib where it is missing (Colab); torch and numpy stay as they are.
import sys
from importlib.metadata import version
from importlib.util import find_spec

if find_spec("figures") is None:  # papermill was called from the folder above
    sys.path.insert(0, "notebooks")
if find_spec("sqlib") is None:
    import subprocess

    keep = [f"{n}=={version(n)}" for n in ("numpy", "torch") if find_spec(n)]
    source = "git+{url}"
    print("Installing", source, "and keeping", *keep)
    pip = [sys.executable, "-m", "pip", "install", "-q", source, *keep]
    if subprocess.run(pip).returncode:
        raise RuntimeError(f"pip could not install {source}, see above")
"""
TAGS = ["setup", "remove-cell"]


def setup_source(url: str) -> str:
    """The text of the cell for a repository address."""
    return TEMPLATE.replace("{url}", url).rstrip("\n")


def notebook_paths(root: Path = ROOT) -> list[Path]:
    """The chapters in reading order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def with_setup(notebook: dict[str, Any], url: str) -> dict[str, Any]:
    """The notebook with the set-up cell as its first code cell (replaced or inserted)."""
    source = setup_source(url).splitlines(keepends=True)
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "setup",
        "metadata": {"tags": TAGS},
        "outputs": [],
        "source": source,
    }
    cells = [c for c in notebook["cells"] if "setup" not in c["metadata"].get("tags", [])]
    # The title comes first, so that GitHub and Colab show it as the notebook's heading.
    place = 1 if cells and cells[0]["cell_type"] == "markdown" else 0
    return {**notebook, "cells": [*cells[:place], cell, *cells[place:]]}


def main() -> None:
    url = repository_url()
    for path in notebook_paths():
        text = path.read_text(encoding="utf8")
        new = json.dumps(with_setup(json.loads(text), url), indent=1, ensure_ascii=False) + "\n"
        if new != text:
            path.write_text(new, encoding="utf8")
            print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
