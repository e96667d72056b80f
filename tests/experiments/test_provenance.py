from __future__ import annotations

from sqlib.experiments import provenance
from sqlib.experiments.compute import code_roots
from sqlib.experiments.planner import plan


def test_modules_are_followed_through_imports_and_do_not_depend_on_the_process():
    modules = provenance.code_modules(["sqlib.experiments.runner"])
    assert {"sqlib.experiments.runner", "sqlib.experiments.store", "sqlib.experiments.claims"} <= set(modules)
    assert "sqlib.cli" not in modules and "sqlib.errors" not in modules


def test_the_file_of_the_cells_network_is_among_its_modules_and_others_are_not():
    expected = {"carn-m": "carn", "edsr-small": "edsr"}
    cells = {cell.model: cell for cell in plan("dfsq-beyond", "laptop")}
    for name, file in expected.items():
        modules = provenance.code_modules(code_roots(cells[name]))
        networks = [
            m for m in modules if m.startswith("sqlib.models.") and not m.startswith("sqlib.models._")
        ]
        assert networks == [f"sqlib.models.{file}"]


def test_hash_follows_the_sources(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("from sqlib import b\n")
    (tmp_path / "b.py").write_text("x = 1\n")
    (tmp_path / "c.py").write_text("y = 1\n")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    provenance._imports.cache_clear()
    try:
        before = provenance.code_hash(["sqlib.a"])
        assert provenance.code_modules(["sqlib.a"]) == ["sqlib.a", "sqlib.b"]
        (tmp_path / "c.py").write_text("y = 2\n")
        assert provenance.code_hash(["sqlib.a"]) == before
        (tmp_path / "b.py").write_bytes(b"x = 1\r\n")  # line ends are not code
        assert provenance.code_hash(["sqlib.a"]) == before
        (tmp_path / "b.py").write_text("x = 2\n")
        assert provenance.code_hash(["sqlib.a"]) != before
    finally:
        provenance._imports.cache_clear()


def test_versions_and_cpu_are_filled():
    found = provenance.versions()
    assert set(found) == {"python", "sqlib", "numpy", "torch", "numba"} and "absent" not in found.values()
    assert provenance.cpu_model()
