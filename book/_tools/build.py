"""Render the book: execute the chapters, stage them beside the prose, run Jupyter Book strictly.

The notebooks in ``notebooks/`` stay without outputs. papermill writes executed copies into
``_build/executed``; these and the prose go into ``_build/stage``, from where Jupyter Book renders into
``_build/html``. Every folder is emptied first, so a page that left the table of contents is gone from
the site too. Warnings are errors.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cards
import colab
from captions import number_captions

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
STAGE, EXECUTED, HTML = BUILD / "stage", BUILD / "executed", BUILD / "html"


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a step; where it fails its own messages say why, so end without a traceback of ours."""
    status = subprocess.run(command, cwd=ROOT, env=env).returncode
    if status != 0:
        raise SystemExit(f"stopped: {' '.join(command[1:5])} ... ended with status {status}, see above")


def execute(profile: str) -> None:
    """Run every chapter through papermill, widgets in their static form."""
    shutil.rmtree(EXECUTED, ignore_errors=True)
    environment = {
        **os.environ,
        "SQLIB_STATIC": "1",
        "MPLBACKEND": "Agg",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "default"),
    }
    command = [sys.executable, "-m", "sqlib", "run-notebooks", str(EXECUTED), "--profile", profile]
    run(command, env=environment)


def page_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook as a page: papermill's own additions are hidden, its bookkeeping is left out."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags and "remove-cell" not in tags:
            tags = [*tags, "remove-cell"]
        cell["metadata"] = {"tags": tags} if tags else {}
        # Progress bars write to stderr; a page is no place for them. papermill stops at errors before.
        cell.get("outputs", [])[:] = [
            output for output in cell.get("outputs", []) if output.get("name") != "stderr"
        ]
    notebook["metadata"] = {
        key: value for key, value in notebook["metadata"].items() if key in ("kernelspec", "language_info")
    }
    return notebook


def stage() -> None:
    """Gather prose, executed chapters and configuration as Jupyter Book expects them."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(ROOT / "book", STAGE / "book", ignore=shutil.ignore_patterns("_*"))
    shutil.copytree(ROOT / "book" / "_ext", STAGE / "book" / "_ext")
    shutil.copytree(ROOT / "book" / "_static", STAGE / "_static")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, STAGE / name)
    cards.write(ROOT / "_toc.yml", EXECUTED, STAGE / "_static")
    (STAGE / "notebooks").mkdir()
    for path in sorted(EXECUTED.glob("*.ipynb")):
        notebook = page_notebook(json.loads(path.read_text(encoding="utf8")))
        (STAGE / "notebooks" / path.name).write_text(json.dumps(notebook), encoding="utf8")


def render() -> None:
    """Run Jupyter Book: nit-picky, every warning an error, all of them reported."""
    shutil.rmtree(HTML, ignore_errors=True)
    launch = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", launch, "build", str(STAGE), "--path-output", str(BUILD / "jb")]
    run([*command, "-q", "-n", "-W", "--keep-going", "--all"])
    shutil.copytree(BUILD / "jb" / "_build" / "html", HTML)
    (HTML / "_static" / "404.html").replace(HTML / "404.html")  # where GitHub Pages looks for it


def copy_mathjax() -> None:
    """Put MathJax and its fonts beside the pages: one script with every TeX extension, no later loading."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise SystemExit("sphinx-mathjax-offline is not installed: run make venv")
    source = Path(package.origin).parent / "static" / "mathjax"
    target = HTML / "_static" / "mathjax"
    shutil.copytree(source / "output" / "chtml" / "fonts", target / "output" / "chtml" / "fonts")
    shutil.copy(source / "tex-chtml-full.js", target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the book into _build/html.")
    parser.add_argument("--profile", default="smoke", help="smoke, laptop or full (default: %(default)s)")
    parser.add_argument(
        "--no-execute", action="store_true", help="reuse the executed notebooks of the last build"
    )
    args = parser.parse_args()
    begin = time.monotonic()
    if not args.no_execute:
        execute(args.profile)
    executed = time.monotonic()
    stage()
    render()
    copy_mathjax()
    number_captions(HTML)
    colab.write(HTML / "colab")
    colab.point_launch_buttons(HTML)
    times = f"executed in {executed - begin:.0f} s, rendered in {time.monotonic() - executed:.0f} s"
    print(f"{times}: {HTML}/index.html")


if __name__ == "__main__":
    main()
