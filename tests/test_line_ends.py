"""No hash and no value depends on how a clone ends its lines."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sqlib.experiments import packaged_store, papers
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.run.compute import code_roots
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import provenance
from sqlib.experiments.store.packaged import PackagedStore

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
    assert len(lines) > 300
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
    names += [f"sqlib/experiments/store/{name}" for name in ("cells.py", "measured/dfsq.jsonl")]
    names += ["sqlib/experiments/papers/published/dfsq_table2.csv"]
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
    caches = (provenance._imports, provenance._statements, provenance._source)
    for cached in caches:
        cached.cache_clear()
    try:
        assert (provenance.code_modules(roots), provenance.code_hash(roots)) == expected
    finally:
        for cached in caches:
            cached.cache_clear()


def test_records_with_windows_line_ends_are_the_same_records(tmp_path: Path) -> None:
    windows_copy(packaged_store().path, tmp_path, "*.jsonl")
    assert b"\r\n" in (tmp_path / "dfsq.jsonl").read_bytes()
    records, unreadable = PackagedStore(tmp_path).survey()
    assert unreadable == [] and len(records) > 20
    assert records == packaged_store().records()


def test_printed_values_with_windows_line_ends_are_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = published_frame()
    windows_copy(PACKAGE / "experiments" / "papers" / "published", tmp_path, "*.csv")
    for paper in papers.papers().values():
        copies = tuple(tmp_path / file.name for file in paper.printed)
        monkeypatch.setitem(papers._registered, paper.name, replace(paper, printed=copies))
    assert b"\r\n" in copies[0].read_bytes()
    pd.testing.assert_frame_equal(published_frame(), expected)
