"""Where a number comes from: versions, machine, and a hash of the code it depends on."""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
#: Imported by everything, decide nothing: a changed error message must not look like a changed method.
_IGNORED = ("sqlib.errors",)


def versions() -> dict[str, str]:
    """Versions that can move a result in its last digits."""
    import sqlib

    found = {"python": platform.python_version(), "sqlib": sqlib.__version__}
    for name in ("numpy", "torch", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def cpu_model() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """Threads that torch computes with: they decide the order of its sums."""
    import torch

    return torch.get_num_threads()


def code_hash(roots: Iterable[str]) -> str:
    """SHA-256 over the sources of ``roots`` and of every sqlib module they import, directly or not.

    Imports are read from the source, not from ``sys.modules``, so the hash does not depend on what else
    the process happens to have loaded. Cost: parses about fifty files once per process.
    """
    digest = hashlib.sha256()
    for name in code_modules(roots):
        path = _source(name)
        if path is not None:
            # Line ends differ between checkouts of one commit.
            digest.update(f"{name}\n".encode() + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def code_modules(roots: Iterable[str]) -> list[str]:
    """Names of ``roots`` and of all sqlib modules reachable from them by import statements, sorted."""
    pending, seen = list(roots), set()
    while pending:
        name = pending.pop()
        if name in seen or name in _IGNORED or _source(name) is None:
            continue
        seen.add(name)
        pending.extend(_imports(name))
    return sorted(seen)


def _source(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != "sqlib" or len(parts) == 1:  # the top level only forwards names lazily
        return None
    path = _ROOT.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(name: str) -> tuple[str, ...]:
    path = _source(name)
    assert path is not None
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            # `from sqlib.models import edsr` may name a module or something inside one: try both.
            found.append(base)
            found.extend(f"{base}.{alias.name}" for alias in node.names)
    # A submodule cannot be imported without its package's __init__.
    found.append(package)
    return tuple(name for name in found if name.startswith("sqlib."))
