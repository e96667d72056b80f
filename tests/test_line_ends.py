"""No hash and no value depends on how a clone ends its lines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from sqlib.experiments import frame, packaged_store, provenance
from sqlib.experiments.compute import code_roots
from sqlib.experiments.planner import plan
from sqlib.experiments.store import Store

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sqlib"
BINARY = {".png", ".jpg", ".safetensors", ".npz", ".pt", ".pth"}


def git(*args: str, folder: Path = ROOT) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def checkout() -> Path:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    return ROOT


def test_every_tracked_text_has_unix_line_ends_and_every_binary_is_marked(checkout: Path) -> None:
    lines = git("ls-files", "--eol").splitlines()
    assert len(lines) > 500
    for line in lines:
        facts, name = line.split("\t")
        index, tree, attributes = facts.split(maxsplit=2)
        if Path(name).suffix in BINARY:
            assert attributes.strip() == "attr/-text", name
        else:
            assert index in ("i/lf", "i/none") and tree in ("w/lf", "w/none", "w/"), name
            assert attributes.strip() in ("attr/text eol=lf", "attr/text=auto eol=lf"), name


def test_a_clone_that_asks_for_windows_line_ends_gets_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    """The files as they are now, committed, and cloned as git for Windows does."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    names = [".gitattributes", "Makefile", "README.md", "notebooks/01-super-resolution.ipynb"]
    names += ["book/_tools/check_python.sh", "book/_static/readme.png"]
    names += [f"sqlib/experiments/{name}" for name in ("store.py", "cells.py", "published/dfsq_table2.csv")]
    names += [f"sqlib/models/weights/edsr-small-x4.{suffix}" for suffix in ("json", "safetensors")]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    git("init", "-q", folder=source)
    git("-c", "core.safecrlf=false", "add", "-A", folder=source)
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    git(*who, "commit", "-q", "-m", "all", folder=source)
    windows = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    git(*windows, "clone", "-q", *windows, str(source), str(clone), folder=tmp_path)
    for name in names:
        assert (clone / name).read_bytes() == (ROOT / name).read_bytes(), name


def windows_copy(source: Path, target: Path, pattern: str) -> None:
    for path in source.rglob(pattern):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def test_code_hash_of_sources_with_windows_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [root for cell in plan("dfsq-table2", "laptop")[:2] for root in code_roots(cell)]
    expected = provenance.code_modules(roots), provenance.code_hash(roots)
    windows_copy(PACKAGE, tmp_path, "*.py")
    assert b"\r\n" in (tmp_path / "evaluate.py").read_bytes()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    provenance._imports.cache_clear()
    try:
        assert (provenance.code_modules(roots), provenance.code_hash(roots)) == expected
    finally:
        provenance._imports.cache_clear()


def test_records_with_windows_line_ends_are_the_same_records(tmp_path: Path) -> None:
    for folder in sorted(packaged_store().path.glob("0?")):
        windows_copy(folder, tmp_path / folder.name, "*.json")
    records, unreadable = Store(tmp_path).survey()
    assert unreadable == [] and len(records) > 20
    assert records == [packaged_store().read(record["key"]) for record in records]


def test_printed_values_with_windows_line_ends_are_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = frame.published_frame()
    windows_copy(PACKAGE / "experiments" / "published", tmp_path / "published", "*.csv")
    monkeypatch.setattr(frame.resources, "files", lambda package: tmp_path)
    frame._all_values.cache_clear()
    try:
        pd.testing.assert_frame_equal(frame.published_frame(), expected)
    finally:
        frame._all_values.cache_clear()
