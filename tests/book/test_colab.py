"""Copies for Colab: nothing is left that only Jupyter Book understands."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import colab
import pytest

COPIES = colab.Copies()
ROLES = re.compile(r"\{[a-z:-]+\}`|```\{|^\([\w-]+\)=|\$\$ \(|^:label:", re.MULTILINE)
SITE = Path(__file__).resolve().parents[2] / "_build" / "html" / "notebooks"


def prose(name: str) -> str:
    cells = COPIES.copy(name)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("name", COPIES.chapters)
def test_reads_as_plain_markdown(name: str) -> None:
    text = prose(name)
    assert not ROLES.findall(text)
    assert not re.findall(
        r"\\['\"`^~]|\{\w", re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "", text, flags=re.DOTALL)
    )
    for cell in COPIES.copy(name)["cells"]:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))


@pytest.mark.parametrize("name", COPIES.chapters)
def test_equations_have_the_numbers_of_the_site(name: str) -> None:
    page = SITE / f"{name}.html"
    if not page.is_file():
        pytest.skip("no rendered site: run make book first")
    shown = re.findall(r'class="eqno">\(([^)]*)\)', page.read_text(encoding="utf8"))
    assert re.findall(r"\\tag\{([^}]*)\}", prose(name)) == shown


def test_roles_are_written_out() -> None:
    cited: list[str] = []
    text = COPIES._written(
        "(x)=\n# T\n{cite}`zhong2023dfsq` {doc}`09-bounds` {doc}`notes <notation>` {eq}`eq-schedule`\n"
        "```{admonition} Aside: a\nbody\nmore\n```\n```{dropdown} Folded\nrest\n```\n"
        "```{bibliography}\n:filter: x\n```",
        cited,
    )
    assert text.startswith("# T\n[Zhong et al., 2023] [chapter 9, DOBI")
    assert "/blob/colab/09-bounds.ipynb)" in text and "[notes](https://github.com/" in text
    assert "> **Aside: a**\n> body\n> more" in text and re.search(r"\(\d+(\.\d+)?\)\n>", text)
    assert "> **Folded**\n> rest" in text
    assert text.endswith("arXiv:2305.05888, 2023.") and cited == ["zhong2023dfsq"]


def test_code_is_folded_and_the_device_is_found() -> None:
    cells = COPIES.copy("17-refqsr-tables")["cells"]
    drawing = [c for c in cells if "remove-input" in c["metadata"].get("tags", [])]
    assert drawing and all(c["metadata"]["cellView"] == "form" for c in drawing)
    assert all(c["source"][0].startswith("# @title ") for c in drawing)
    (parameters,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert "torch.cuda.is_available()" in "".join(parameters["source"])


@pytest.mark.parametrize("name", COPIES.chapters)
def test_drawing_code_comes_along(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {cell["id"]: "".join(cell["source"]) for cell in COPIES.copy(name)["cells"]}
    monkeypatch.chdir(tmp_path)
    exec(cells.get("figures", ""), {})
    written = {p.stem: p.read_text(encoding="utf8") for p in tmp_path.glob("figures/*.py")}
    for module, text in written.items():
        assert text == (colab.ROOT / "notebooks" / "figures" / f"{module}.py").read_text(encoding="utf8")
    imports = re.findall(r"^from figures import (\w+)|^from figures\.(\w+)", "\n".join(cells.values()), re.M)
    assert {a or b for a, b in imports} <= set(written)
    order = list(cells)
    assert not written or order.index("figures") < order.index("setup")


def test_files_and_buttons(tmp_path: Path) -> None:
    colab.write(tmp_path / "colab")
    assert {p.stem for p in (tmp_path / "colab").glob("*.ipynb")} == set(COPIES.chapters)
    json.loads((tmp_path / "colab" / "09-bounds.ipynb").read_text(encoding="utf8"))
    page = tmp_path / "a.html"
    page.write_text(
        '<a href="https://colab.research.google.com/github/o/r/blob/main/notebooks/a.ipynb">', "utf8"
    )
    colab.point_launch_buttons(tmp_path)
    assert page.read_text("utf8").endswith('/github/o/r/blob/colab/a.ipynb">')


def test_copies_are_pushed_to_a_branch_of_their_own(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there.git"
    (here / "_build" / "html" / "colab").mkdir(parents=True)
    (here / "_build" / "html" / "colab" / "a.ipynb").write_text("{}")
    (here / ".gitignore").write_text("_build/\n")
    shutil.copy(colab.ROOT / "Makefile", here)
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", "--bare", str(there)], check=True)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "x"],
        ["remote", "add", "origin", str(there)],
    ):
        subprocess.run([*git, *command], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for _ in range(2):
        subprocess.run(["make", "-s", "-C", str(here), "publish-colab"], check=True, env=environment)
    listed = ["git", "-C", str(there), "ls-tree", "--name-only", "colab"]
    assert subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split() == ["a.ipynb"]
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""
