"""``sqlib run-notebooks`` never writes over the notebooks that it reads."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sqlib.errors import InputError
from sqlib.experiments.run.notebook import run_notebook


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("01.ipynb", "02.ipynb"):
        cells = [new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]})]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_itself_in_any_spelling(sources: Path, fails, monkeypatch) -> None:
    before = contents(sources)
    (sources.parent / "link").symlink_to(sources)
    monkeypatch.chdir(sources)
    for out in (sources, sources / ".", sources / ".." / "notebooks", sources.parent / "link", "."):
        for only in ((), ("--only", "02")):
            error = fails(2, "run-notebooks", out, "--notebooks", sources, *only)
            assert "would overwrite the source" in error
    assert "would overwrite" in fails(2, "run-notebooks", sources, "--notebooks", "../link")
    assert contents(sources) == before


def test_outputs_that_are_links_to_sources(sources: Path, fails) -> None:
    before, out = contents(sources), sources.parent / "out"
    out.mkdir()
    os.link(sources / "02.ipynb", out / "02.ipynb")
    assert "would overwrite the source" in fails(2, "run-notebooks", out, "--notebooks", sources)
    (out / "02.ipynb").unlink()
    (out / "01.ipynb").symlink_to(sources / "02.ipynb")  # to another one of them
    assert "02.ipynb" in fails(2, "run-notebooks", out, "--notebooks", sources, "--only", "01")
    assert contents(sources) == before and not (out / "02.ipynb").exists()
    (sources / "file").write_text("")
    assert "is not a folder" in fails(2, "run-notebooks", sources / "file", "--notebooks", sources)


def test_the_library_refuses_too(sources: Path) -> None:
    before = contents(sources)
    (sources.parent / "link.ipynb").symlink_to(sources / "01.ipynb")
    for out in (sources / "01.ipynb", sources.parent / "link.ipynb"):
        with pytest.raises(InputError, match="is the notebook itself"):
            run_notebook(sources / "01.ipynb", out)
    assert contents(sources) == before
