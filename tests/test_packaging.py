"""The package: declared requirements, pinned versions, contents of the wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: import name -> distribution, where they differ
PROVIDERS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "IPython": "ipywidgets"}


def project() -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    return data["project"]


def listed(path: Path) -> dict[str, Requirement]:
    lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def declared(*groups: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_requirements_and_pyproject_agree() -> None:
    data = project()
    ours = declared(data["dependencies"], data["optional-dependencies"]["book"])
    assert listed(ROOT / "requirements.txt") == ours


def test_every_requirement_is_pinned_within_its_range() -> None:
    data = project()
    extras = data["optional-dependencies"]
    pins = listed(ROOT / "constraints.txt")
    groups = (data["dependencies"], *(extras[name] for name in ("book", "dev", "cluster", "export")))
    for name, requirement in declared(*groups).items():
        assert name in pins, f"{name} has no line in constraints.txt"
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{pins[name]} is outside {requirement}"


def test_constraints_are_portable() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf8")
    assert "torch==2.13.0\n" in text
    assert "+" not in text and "@" not in text and "file:" not in text


def test_pins_install_on_the_oldest_python() -> None:
    """On 3.11.0, that is: some releases ask for a later 3.11."""
    oldest = f"{min(re.findall(r'[0-9.]+', project()['requires-python']))}.0"
    for name, pin in listed(ROOT / "constraints.txt").items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        asked = found.metadata.get("Requires-Python")
        if asked is not None and pin.specifier.contains(found.version):
            assert SpecifierSet(asked).contains(oldest), f"{pin} asks for Python {asked}"


def test_jupyter_book_stays_below_version_2() -> None:
    specifier = listed(ROOT / "requirements.txt")["jupyter-book"].specifier
    assert (
        specifier.contains("1.0.4.post1")
        and not specifier.contains("2.0.0")
        and not specifier.contains("0.15.1")
    )


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_hosted_versions_are_in_range(name: str) -> None:
    """Ranges are wide, so that pip leaves the torch and numpy of a hosted notebook alone."""
    specifier = declared(project()["dependencies"])[name].specifier
    hosted = {"torch": ["2.4.0", "2.6.0+cu124", "2.8.0+cu126"], "numpy": ["1.26.4", "2.0.2", "2.4.6"]}
    assert all(specifier.contains(version) for version in hosted[name])


def imported(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"sqlib"}


def test_everything_imported_is_declared() -> None:
    data = project()
    names = {canonicalize_name(PROVIDERS.get(name, name)) for name in imported(ROOT / "sqlib")}
    groups = [data["dependencies"], *data["optional-dependencies"].values()]
    # cycler comes with matplotlib, llvmlite with numba; each is part of the other's interface
    assert names - {"cycler", "llvmlite"} <= set(declared(*groups))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the sources, without the network."""
    import shutil

    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "sqlib", source / "sqlib", ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "-w", str(out), str(source)], check=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_code_data_and_licences(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    suffixes = (".py", ".csv", ".json", ".jsonl", ".safetensors", "py.typed")
    files = [path for path in (ROOT / "sqlib").rglob("*") if path.is_file() and path.name.endswith(suffixes)]
    missing = [
        str(path.relative_to(ROOT)) for path in files if path.relative_to(ROOT).as_posix() not in names
    ]
    assert missing == []
    assert {"sqlib/py.typed"} <= names
    assert sum(name.startswith("sqlib/experiments/papers/published/") for name in names) >= 10
    assert any(name.endswith(".safetensors") for name in names)
    assert {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name} == {"LICENSE", "LICENSE-text"}
    top = {name.split("/", 1)[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"sqlib"}


def test_wheel_declares_extras_and_command(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    text = wheel.read(metadata).decode()
    assert set(re.findall(r"^Provides-Extra: (\w+)", text, re.M)) == {"book", "cluster", "dev", "export"}
    assert re.search(r"^Requires-Python: >=3.11$", text, re.M)
    import sqlib

    assert f"\nVersion: {sqlib.__version__}\n" in text
    points = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "sqlib = sqlib.__main__:main" in points


def test_version_is_the_same_in_the_citation() -> None:
    import yaml

    import sqlib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert str(citation["version"]) == sqlib.__version__
    assert citation["cff-version"] == "1.2.0" and citation["title"] and citation["authors"]
