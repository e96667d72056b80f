from __future__ import annotations

import pytest

from sqlib.experiments.store import provenance


def test_modules_are_followed_through_imports_and_do_not_depend_on_the_process():
    modules = provenance.code_modules(["sqlib.experiments.run.runner"])
    assert {f"sqlib.experiments.{m}" for m in ("run.runner", "store.working", "store.locks")} <= set(modules)
    assert "sqlib.cli" not in modules and "sqlib.errors" not in modules


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A package called sqlib, made of these files."""
    caches = (provenance._imports, provenance._statements, provenance._source)

    def write(**files):
        for cached in caches:
            cached.cache_clear()
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, newline="")

    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    yield write
    for cached in caches:
        cached.cache_clear()


def test_hash_follows_the_sources(sources):
    sources(a="from sqlib import b\n", b="x = 1\n", c="y = 1\n")
    before = provenance.code_hash(["sqlib.a"])
    assert provenance.code_modules(["sqlib.a"]) == ["sqlib.a", "sqlib.b"]
    sources(c="y = 2\n")
    assert provenance.code_hash(["sqlib.a"]) == before
    sources(b="x = 1\r\n")  # line ends are not code
    assert provenance.code_hash(["sqlib.a"]) == before
    sources(b="x = 2\n")
    assert provenance.code_hash(["sqlib.a"]) != before


def test_a_name_that_a_package_passes_on_leads_to_its_module_alone(sources):
    passed_on = "from sqlib.p.one import One\nfrom sqlib.p.two import Two\n"
    sources(p__one="One = 1\n", p__two="Two = 2\n", a="from sqlib.p import One\n", b="from sqlib import p\n")
    lazily = "if TYPE_CHECKING:\n" + "".join(f"    {line}\n" for line in passed_on.splitlines())
    for text in (passed_on, lazily):
        (provenance._ROOT / "p" / "__init__.py").write_text(text)
        sources()
        assert provenance.code_modules(["sqlib.a"]) == ["sqlib.a", "sqlib.p.one"]
        assert provenance.code_modules(["sqlib.b"]) == ["sqlib.b", "sqlib.p", "sqlib.p.one", "sqlib.p.two"]


def test_imports_for_type_checkers_are_not_used(sources):
    sources(a="if TYPE_CHECKING:\n    from sqlib import b\ndef f():\n    from sqlib.c import y\n")
    sources(b="x = 1\n", c="y = 1\n")
    assert provenance.code_modules(["sqlib.a"]) == ["sqlib.a", "sqlib.c"]


def test_a_recipe_of_another_package_is_a_root_too():
    assert "json.decoder" in provenance.code_modules(["json.decoder"])
    assert provenance.code_modules(["no_such_package.recipe"]) == []


def test_versions_and_cpu_are_filled():
    found = provenance.versions()
    assert set(found) == {"python", "sqlib", "numpy", "torch", "numba"} and "absent" not in found.values()
    assert provenance.cpu_model()
