"""Copies of the chapters for Colab, which shows a notebook raw: what only Jupyter Book reads is written out.

Citations, references to equations, chapters and sections, labels and directives become plain Markdown; code
off the page gets Colab's fold, and the modules that draw come along in a cell, so that a copy needs no other
file; `device` picks the GPU where there is one. ``build.py`` writes the copies beside
the site, ``pages.yml`` pushes them to the branch `BRANCH`, and the launch buttons point there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pybtex.database import Entry, parse_file
from repository import ROOT, repository_url

BRANCH = "colab"
_EQUATION = re.compile(r"\$\$\n(?P<plain>.*?)\n\$\$ \((?P<label>[\w-]+)\)", re.DOTALL)
_MATH = re.compile(r"```\{math\}\n:label: (?P<label>[\w-]+)\n(?P<plain>.*?)\n```", re.DOTALL)
_EITHER = re.compile(f"{_EQUATION.pattern}|{_MATH.pattern.replace('P<', 'P<m_')}", re.DOTALL)
_ADMONITION = re.compile(r"```\{(?:admonition|dropdown)\} (?P<title>[^\n]*)\n(?P<body>.*?)\n```", re.DOTALL)
_BIBLIOGRAPHY = re.compile(r"```\{bibliography\}.*?```", re.DOTALL)
_ROLE = re.compile(r"\{(cite|doc|eq|ref)\}`([^`]*)`")
_LABEL = re.compile(r"^\(([\w-]+)\)=\n", re.MULTILINE)
_FOLDED = {
    "setup": "Set-up",
    "remove-input": "Drawing",
    "hide-input": "Set-up",
    "hide-cell": "Solution",
    "remove-cell": "Check",
}
_DEVICE = 'device: str = "cpu"'


class Copies:
    """All chapters, and what their references need.

    Parameters
    ----------
    root
        Of the checkout.
    """

    def __init__(self, root: Path = ROOT) -> None:
        toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
        self.address = repository_url(root)
        self.works = parse_file(str(root / "book" / "references.bib")).entries
        self.figures = root / "notebooks" / "figures"
        self.chapters: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, int] = {}
        self.titles: dict[str, str] = {}
        self.equations: dict[str, str] = {}
        self.sections: dict[str, str] = {}
        number = 0
        for part in toc["parts"]:
            for name in (Path(chapter["file"]).name for chapter in part["chapters"]):
                number += bool(part.get("numbered"))
                self._enter(root, name, number if part.get("numbered") else None)

    def _enter(self, root: Path, name: str, number: int | None) -> None:
        path = root / "notebooks" / f"{name}.ipynb"
        if path.is_file():
            self.chapters[name] = json.loads(path.read_text(encoding="utf8"))
            text = "\n\n".join(_texts(self.chapters[name]))
        else:
            text = (root / "book" / f"{name}.md").read_text(encoding="utf8")
        found = re.search(r"^# (.*)", text, re.MULTILINE)
        self.titles[name] = found[1] if found else name
        if number is not None:
            self.numbers[name] = number
        labels = [m["label"] or m["m_label"] for m in _EITHER.finditer(text)]
        for count, label in enumerate(labels, 1):
            self.equations[label] = str(count) if number is None else f"{number}.{count}"
        for label, heading in re.findall(r"^\(([\w-]+)\)=\n#+ (.*)", text, re.MULTILINE):
            self.sections[label] = heading

    def copy(self, name: str) -> dict[str, Any]:
        """One chapter, written out."""
        source = self.chapters[name]
        cited: list[str] = []
        cells = []
        for cell in source["cells"]:
            text = "".join(cell["source"])
            tags = cell["metadata"].get("tags", [])
            if cell["cell_type"] == "markdown":
                cells.append({**cell, "source": self._written(text, cited).splitlines(keepends=True)})
            else:
                if "setup" in tags:
                    cells += self._drawing(source)
                cells.append(_folded(cell, text, tags))
        return {**source, "cells": cells}

    def _drawing(self, notebook: dict[str, Any]) -> list[dict[str, Any]]:
        """A cell that writes the modules of `figures` which the chapter imports, where it finds them."""
        code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
        modules = self._imported(code)
        if not modules:
            return []
        writing = [
            f"Path(\"figures/{name}.py\").write_text(r'''{text}''', encoding=\"utf8\")"
            for name, text in modules.items()
        ]
        text = "\n".join(
            ("# @title Code that draws the figures", "from pathlib import Path", "")
            + ('Path("figures").mkdir(exist_ok=True)', *writing[:-1], f"_ = {writing[-1]}")
        )
        return [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": "figures",
                "metadata": {"cellView": "form"},
                "outputs": [],
                "source": text.splitlines(keepends=True),
            }
        ]

    def _imported(self, code: str) -> dict[str, str]:
        """Name and text of the modules of `figures` that the code imports, and of those that they import."""
        modules: dict[str, str] = {}
        for one, several in re.findall(r"^from figures(?:\.(\w+) import|  *import (.*))", code, re.MULTILINE):
            for name in [one] if one else [part.split()[0] for part in several.split(",")]:
                text = (self.figures / f"{name}.py").read_text(encoding="utf8")
                modules |= {name: text, **self._imported(text)}
        return modules

    def _written(self, text: str, cited: list[str]) -> str:
        text = _LABEL.sub("", text)
        text = _EITHER.sub(self._equation, text)
        text = _ADMONITION.sub(lambda m: "> **{}**\n> {}".format(m[1], m[2].replace("\n", "\n> ")), text)
        text = _ROLE.sub(lambda m: self._role(m[1], m[2], cited), text)
        return _BIBLIOGRAPHY.sub(lambda _: "\n".join(f"- {self._work(key)}" for key in cited), text)

    def _equation(self, match: re.Match[str]) -> str:
        label, plain = match["label"] or match["m_label"], match["plain"] or match["m_plain"]
        return f"$$\n{plain}\n\\tag{{{self.equations[label]}}}\n$$"

    def _role(self, role: str, text: str, cited: list[str]) -> str:
        shown, _, inner = text.rstrip(">").partition(" <")
        target = inner or shown
        if role == "cite":
            keys = [key.strip() for key in target.split(",")]
            cited += [key for key in keys if key not in cited]
            return f"[{'; '.join(_short(self.works[key]) for key in keys)}]"
        if role == "eq":
            return f"({self.equations[target]})"
        if role == "ref":
            return shown if inner else self.sections[target]
        name = Path(target).name
        title = shown if inner else self.titles[name]
        if name in self.numbers:
            title = title if inner else f"chapter {self.numbers[name]}, {title}"
        return f"[{title}]({self._link(name)})"

    def _link(self, name: str) -> str:
        if name in self.chapters:
            return f"{colab_folder(self.address)}/{name}.ipynb"
        return f"{self.address}/blob/main/book/{name}.md"

    def _work(self, key: str) -> str:
        entry = self.works[key]
        fields = entry.fields
        venue = fields.get("booktitle") or fields.get("journal") or fields.get("publisher") or ""
        if "eprint" in fields:
            venue = f"arXiv:{fields['eprint']}"
        people = ", ".join(" ".join([*p.first_names, *p.last_names]) for p in entry.persons["author"])
        return f"{_plain(people)}. {_plain(fields['title'])}. {_plain(venue)}, {fields['year']}."


def colab_folder(address: str) -> str:
    """Where Colab opens the copies of a repository."""
    return f"https://colab.research.google.com/github/{address.split('/', 3)[3]}/blob/{BRANCH}"


def write(folder: Path) -> None:
    """Write all copies into `folder`, which is emptied first."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    copies = Copies()
    for name in copies.chapters:
        text = json.dumps(copies.copy(name), indent=1, ensure_ascii=False)
        (folder / f"{name}.ipynb").write_text(text + "\n", encoding="utf8")


def point_launch_buttons(folder: Path) -> None:
    """Let the launch buttons of the pages in `folder` open the copies."""
    there = re.compile(
        r"(https://colab\.research\.google\.com/github/[^/\"]+/[^/\"]+/blob/)[^/\"]+/notebooks/"
    )
    for path in sorted(folder.rglob("*.html")):
        page = path.read_text(encoding="utf8")
        new = there.sub(rf"\g<1>{BRANCH}/", page)
        if new != page:
            path.write_text(new, encoding="utf8")


def _texts(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def _folded(cell: dict[str, Any], text: str, tags: list[str]) -> dict[str, Any]:
    """A code cell with the fold that Colab knows, and the GPU as its device where there is one."""
    if "parameters" in tags:
        gpu = 'device: str = "cuda" if torch.cuda.is_available() else "cpu"'
        text = "import torch\n\n" + text.replace(_DEVICE, gpu)
    title = next((_FOLDED[tag] for tag in tags if tag in _FOLDED), None)
    metadata = dict(cell["metadata"])
    if title is not None:
        text = f"# @title {title}\n{text}"
        metadata["cellView"] = "form"
    return {**cell, "metadata": metadata, "source": text.splitlines(keepends=True)}


def _short(entry: Entry) -> str:
    """Author and year: "Lee et al., 2024"."""
    names = [_plain(" ".join(p.last_names)) for p in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{who}, {entry.fields['year']}"


_ACCENTS = {
    "'": "\u0301", '"': "\u0308", "`": "\u0300", "^": "\u0302", "~": "\u0303", "c": "\u0327", "v": "\u030c",
    "=": "\u0304",
}  # fmt: skip


def _plain(text: str) -> str:
    """LaTeX of the bibliography as plain text."""
    import unicodedata

    text = re.sub(
        r"\{?\\(['\"`^~=cv])\s*\{?(\\?[a-zA-Z])\}?\}?",
        lambda m: unicodedata.normalize("NFC", m[2].lstrip("\\") + _ACCENTS[m[1]]),
        text,
    )
    return text.replace("{", "").replace("}", "").replace("\\&", "&").replace("--", "–")
