"""The book's sources: notebooks, table of contents, configuration, workflows, repository address."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import papermill
import pytest
import yaml
from repository import COPIES, repository_url, set_url
from setup_cell import setup_source, with_setup

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = {"profile": "smoke", "device": "cpu", "data_dir": None, "seed": 0}
#: import name -> name in requirements.txt, where they differ
PROVIDERS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "IPython": "ipykernel"}


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tagged(notebook: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [cell for cell in code_cells(notebook) if tag in cell["metadata"].get("tags", [])]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def toc_files() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_stripped(self, path: Path) -> None:
        for cell in code_cells(read(path)):
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert not set(cell["metadata"]) - {"tags"}, "cell metadata other than tags"
            assert "injected-parameters" not in cell["metadata"].get("tags", [])

    def test_has_one_cell_of_parameters(self, path: Path) -> None:
        cells = tagged(read(path), "parameters")
        assert len(cells) == 1
        values = {
            node.target.id: ast.literal_eval(node.value)
            for node in ast.parse(text(cells[0])).body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        }
        assert values == PARAMETERS

    def test_papermill_shows_types_and_help(self, path: Path) -> None:
        found = papermill.inspect_notebook(str(path))
        types = {name: entry["inferred_type_name"] for name, entry in found.items()}
        assert types == {"profile": "str", "device": "str", "data_dir": "str", "seed": "int"}
        assert all(entry["help"] for entry in found.values())

    def test_begins_with_the_setup_cell(self, path: Path) -> None:
        first = code_cells(read(path))[0]
        assert text(first) == setup_source(repository_url()), "run make sync"

    def test_begins_with_its_title(self, path: Path) -> None:
        first = read(path)["cells"][0]
        assert first["cell_type"] == "markdown" and re.match(r"(\([\w-]+\)=\n)?# \S", text(first))

    def test_cells_are_short(self, path: Path) -> None:
        for cell in code_cells(read(path)):
            # Drawing code is not on the page; what a reader meets unasked must be short.
            aside = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
            longest = 55 if aside & set(cell["metadata"].get("tags", [])) else 30
            assert len(text(cell).splitlines()) <= longest, text(cell)[:200]

    def test_imports_only_what_is_required(self, path: Path) -> None:
        lines = (ROOT / "requirements.txt").read_text(encoding="utf8").splitlines()
        required = {re.split(r"[<>=!~]", line)[0] for line in lines if line and not line.startswith("#")}
        modules = set()
        for cell in code_cells(read(path)):
            for node in ast.walk(ast.parse(text(cell))):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module.split(".")[0])
        foreign = {
            name
            for name in modules
            if name not in ("figures", "sqlib") and name not in sys.stdlib_module_names
        }
        assert {PROVIDERS.get(name, name) for name in foreign} <= required

    def test_drawing_code_lies_beside_it(self, path: Path) -> None:
        for cell in code_cells(read(path)):
            assert not re.search(r"^\s*(from|import) matplotlib", text(cell), re.MULTILINE), text(cell)[:200]

    def test_is_in_the_table_of_contents(self, path: Path) -> None:
        assert f"notebooks/{path.stem}" in toc_files()

    def test_uses_no_machine_path(self, path: Path) -> None:
        assert not re.search(r"/(work|root|home|tmp|content)/", path.read_text(encoding="utf8"))


def test_every_drawing_function_is_used() -> None:
    modules = [path.read_text(encoding="utf8") for path in sorted((ROOT / "notebooks/figures").glob("*.py"))]
    cells = [text(cell) for path in NOTEBOOKS for cell in code_cells(read(path))]
    words = Counter(re.findall(r"\w+", "\n".join([*modules, *cells])))
    defined = [n.name for m in modules for n in ast.parse(m).body if isinstance(n, ast.FunctionDef)]
    assert defined and not [name for name in defined if words[name] < 2]


def test_table_of_contents_is_complete_and_true() -> None:
    files = toc_files()
    assert len(files) == len(set(files))
    prose = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    assert set(files) == prose | {f"notebooks/{path.stem}" for path in NOTEBOOKS}


def test_chapters_are_in_reading_order() -> None:
    chapters = [name for name in toc_files() if name.startswith("notebooks/")]
    assert chapters == sorted(chapters)


def test_every_citation_is_in_the_bibliography() -> None:
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf8")
    keys = re.findall(r"^@\w+\{([\w]+),", bib, re.M)
    assert len(keys) == len(set(keys)) > 20
    sources = [path.read_text(encoding="utf8") for path in [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]]
    cited = {
        key.strip()
        for source in sources
        for group in re.findall(r"\{cite(?::\w+)?\}`([\w, ]+)`", source)
        for key in group.split(",")
    }
    assert cited - {"key"} <= set(keys)  # "key" is the example in contributing.md


@pytest.mark.parametrize(
    "path",
    [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"],
    ids=lambda path: path.name,
)
def test_files_and_modules_that_are_named_exist(path: Path) -> None:
    source = path.read_text(encoding="utf8")
    files = re.findall(r"(?<![\w/.])((?:tests|sqlib|benchmarks|book)/[\w/]+\.py)", source)
    assert [name for name in files if "NAME" not in name and not (ROOT / name).is_file()] == []
    assert [name for name in re.findall(r"`(sqlib(?:\.\w+)+)`", source) if not known(name)] == []


def known(name: str) -> bool:
    """Whether a dotted name is a module, or something inside one."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        return all((found := getattr(found, part, None)) is not None for part in parts[k:])
    return False


# --- the set-up cell ---


OTHER_SPELLINGS = re.compile(r"\bMinMax\b|\b[Mm]in-max\b|\bmin/max\b|DBDC\+PaC|DBDC \+ Pa|DBDC_P|DBDC-P")
CODE = re.compile(r"```.*?```|`[^`]*`|^    .*?$", re.S | re.M)


@pytest.mark.parametrize(
    "path",
    [
        *NOTEBOOKS,
        *sorted((ROOT / "book").glob("*.md")),
        ROOT / "README.md",
        ROOT / "benchmarks" / "README.md",
    ],
    ids=lambda path: path.name,
)
def test_methods_have_one_spelling_in_prose(path: Path) -> None:
    """Min-Max and DBDC+Pac; the class is `MinMax`, in code."""
    if path.suffix == ".ipynb":
        prose = "\n\n".join(text(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    else:
        prose = path.read_text(encoding="utf8")
    assert OTHER_SPELLINGS.findall(CODE.sub("", prose)) == []


def test_other_spellings_are_found() -> None:
    for wrong in ("MinMax", "min-max", "Min-max", "DBDC+PaC", "DBDC + PaC", "DBDC_Pac"):
        assert OTHER_SPELLINGS.search(f"the {wrong} rows") and not OTHER_SPELLINGS.search("Min-Max, DBDC+Pac")
    assert CODE.sub("", "a `MinMax` b\n```py\nMinMax\n```\nc") == "a  b\n\nc"


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"], ids=["above", "beside"])
def test_drawing_code_is_found(folder: Path) -> None:
    code = setup_source(repository_url()) + "\nfrom figures import quantization"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_setup_cell_is_short_and_does_nothing_where_sqlib_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = setup_source(repository_url())
    assert len(source.splitlines()) <= 17
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.syspath_prepend("")
    space: dict[str, Any] = {}
    before = list(sys.path)
    exec(source, space)
    assert "subprocess" not in space and sys.path == before


def run_setup(monkeypatch: pytest.MonkeyPatch, status: int) -> list[list[str]]:
    """Execute the cell as on a machine without sqlib; return the commands it would have run."""
    import importlib.util

    calls: list[list[str]] = []
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sqlib" else find(name))

    def fake(command: list[str]) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(setup_source("https://github.com/example/sqlib"), {})
    return calls


def test_setup_cell_keeps_torch_and_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import version

    (command,) = run_setup(monkeypatch, 0)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "git+https://github.com/example/sqlib" in command
    assert {f"numpy=={version('numpy')}", f"torch=={version('torch')}"} <= set(command)


def test_setup_cell_says_when_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="pip could not install"):
        run_setup(monkeypatch, 1)


def test_setup_cell_is_inserted_once_after_the_title() -> None:
    title = {"cell_type": "markdown", "metadata": {}, "source": "# T"}
    other = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": [], "execution_count": None}
    once = with_setup({"cells": [title, other]}, "https://a.b/c/d")
    assert [cell["cell_type"] for cell in once["cells"]] == ["markdown", "code", "code"]
    assert with_setup(once, "https://a.b/c/d") == once
    changed = with_setup(once, "https://a.b/c/e")
    assert len(changed["cells"]) == 3 and "c/e" in text(changed["cells"][1])


# --- the repository's address ---


def test_address_is_the_same_everywhere() -> None:
    url = repository_url()
    for name in COPIES:
        source = (ROOT / name).read_text(encoding="utf8")
        assert url in source, f"{name} does not give the repository's address: make set-repository"
        assert set(re.findall(r"https://github\.com/[\w.-]+/sqlib\b", source)) <= {url}


def test_set_repository_changes_every_copy(tmp_path: Path) -> None:
    names = ["_config.yml", *COPIES]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf8"), encoding="utf8")
    (tmp_path / "notebooks").mkdir()
    cell = {"cells": [{"source": setup_source(repository_url())}]}
    (tmp_path / "notebooks" / "a.ipynb").write_text(json.dumps(cell), encoding="utf8")
    new = "https://github.com/someone/else"
    old = repository_url()
    assert set(set_url(new, tmp_path)) == {*names, "notebooks/a.ipynb"}
    assert repository_url(tmp_path) == new
    for path in tmp_path.rglob("*.*"):
        source = path.read_text(encoding="utf8")
        assert old not in source and "example.github.io" not in source
    assert "https://someone.github.io/else/" in (tmp_path / "README.md").read_text(encoding="utf8")
    assert set_url(new, tmp_path) == []


@pytest.mark.parametrize("url", ["", "github.com/a/b", "https://github.com/a", "https://github.com/a/b.git"])
def test_set_repository_refuses_what_is_no_address(url: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not an address"):
        set_url(url, tmp_path)


# --- make and continuous integration ---


def make_targets() -> set[str]:
    source = (ROOT / "Makefile").read_text(encoding="utf8")
    return set(re.findall(r"^([a-z-]+):", source, re.M))


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_workflow_runs_only_make_targets(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf8"))
    triggers = workflow[True]  # YAML reads the key `on` as true
    assert triggers
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        words = command.split()
        assert words[0] == "make" and words[1] in make_targets(), command


def test_workflows_cover_pull_request_pages_and_week() -> None:
    folder = ROOT / ".github" / "workflows"
    triggers = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf8"))[True] for path in folder.glob("*.yml")
    }
    assert "pull_request" in triggers["pr"]
    assert triggers["pages"]["push"]["branches"] == ["main"]
    assert triggers["weekly"]["schedule"]


def test_ci_script_is_executable_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    used = set(re.findall(r"^step make ([a-z-]+)", script.read_text(encoding="utf8"), re.M))
    assert {"test", "book"} <= used <= make_targets()


def check_python(folder: Path, body: str | None) -> subprocess.CompletedProcess[str]:
    """Run the check of prerequisites against a pretended interpreter."""
    name = folder / "python3"
    if body is not None:
        name.write_text(f"#!/bin/sh\n{body}\n", encoding="utf8")
        name.chmod(0o755)
    script = ROOT / "book" / "_tools" / "check_python.sh"
    return subprocess.run(["sh", str(script), str(name)], capture_output=True, text=True)


def test_missing_python_is_one_line(tmp_path: Path) -> None:
    result = check_python(tmp_path, None)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "apt install python3 " in result.stderr


def test_old_python_is_one_line(tmp_path: Path) -> None:
    body = 'case "$2" in *version_info*) exit 1;; *python_version*) echo 3.9.2;; esac'
    result = check_python(tmp_path, body)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "3.9.2" in result.stderr and "3.11" in result.stderr


def test_missing_venv_is_one_line(tmp_path: Path) -> None:
    result = check_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac')
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "apt install python3-venv" in result.stderr


def test_sufficient_python_is_silent() -> None:
    script = ROOT / "book" / "_tools" / "check_python.sh"
    result = subprocess.run(["sh", str(script), sys.executable], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_make_help_lists_the_targets() -> None:
    result = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    for target in ("book", "test", "serve", "reproduce", "bench", "lint", "clean", "set-repository"):
        assert f"make {target}" in result.stdout
