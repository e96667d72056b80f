"""The repository's address: ``repository.url`` in ``_config.yml``, copied where it must be repeated.

Notebooks on Colab cannot read ``_config.yml``, and GitHub shows README and CITATION.cff as they are, so
these carry a copy; ``tests/book`` checks that all copies agree. Usage: ``python
book/_tools/repository.py URL``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
URL = re.compile(r"https://[A-Za-z0-9.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
COPIES = [
    "README.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/reproduce.md",
    "book/contributing.md",
]


def repository_url(root: Path = ROOT) -> str:
    """The address that ``_config.yml`` gives."""
    return str(yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["repository"]["url"])


def set_url(url: str, root: Path = ROOT) -> list[str]:
    """Replace the present address by ``url`` in ``_config.yml`` and every copy; return the changed files."""
    if not URL.fullmatch(url) or url.endswith(".git"):
        raise SystemExit(f"URL={url!r} is not an address like https://github.com/OWNER/NAME (without .git)")
    old = repository_url(root)
    changed = []
    paths = [
        root / "_config.yml",
        *(root / name for name in COPIES),
        *sorted((root / "notebooks").glob("*.ipynb")),
    ]
    # Longer paths below the address (issues, raw files) keep their ends; NAME must not match NAME-more.
    pattern = re.compile(re.escape(old) + r"(?![A-Za-z0-9_-])")
    # Colab's links spell the address without its host.
    short, new_short = (address.split("/", 3)[3] for address in (old, url))
    colab = re.compile(r"(colab\.research\.google\.com/github/)" + re.escape(short) + r"(?![A-Za-z0-9_-])")
    site = re.compile(re.escape(_site(old)) + r"(?![A-Za-z0-9_-])")
    for path in paths:
        text = path.read_text(encoding="utf8")
        new = colab.sub(lambda match: match[1] + new_short, pattern.sub(lambda _: url, text))
        new = site.sub(lambda _: _site(url), new)
        if new != text:
            path.write_text(new, encoding="utf8")
            changed.append(str(path.relative_to(root)))
    return changed


def _site(url: str) -> str:
    """Where GitHub Pages publishes the book."""
    owner, name = url.rsplit("/", 2)[1:]
    return f"https://{owner}.github.io/{name}"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        raise SystemExit("say make set-repository URL=https://github.com/OWNER/NAME")
    for name in set_url(sys.argv[1]):
        print("wrote", name)
