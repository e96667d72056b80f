"""Where a number comes from: versions, machine, and a hash of the code that it really depends on."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
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
    """SHA-256 over the sources of ``roots`` and of every sqlib module they use, directly or not.

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
    """Names of ``roots`` and of all sqlib modules reachable from them by import statements, sorted.

    A name that a package only passes on, as ``sqlib.recipes`` does with every recipe, leads to the module
    that defines it and not to all the package's others. Imports for type checkers are none.
    """
    roots = list(roots)
    pending, seen = [*roots], set()
    while pending:
        name = pending.pop()
        if name in seen or name in _IGNORED or (_source(name) is None):
            continue
        if name not in roots and not name.startswith("sqlib."):
            continue
        seen.add(name)
        pending.extend(_imports(name))
    return sorted(seen)


@cache
def _source(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != "sqlib":  # a recipe or a network of somebody else's
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        origin = None if spec is None else spec.origin
        return Path(origin) if origin is not None and origin.endswith(".py") else None
    if len(parts) == 1:  # the top level only forwards names lazily
        return None
    path = _ROOT.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules that ``name`` uses, of a name passed on by a package the one that defines it."""
    found: list[str] = []
    path = _source(name)
    assert path is not None
    # Packages that load lazily name what they pass on for type checkers only.
    for base, alias in _statements(name, checked=path.name == "__init__.py"):
        found.append(base if alias is None else _home(base, alias))
    return tuple(module for module in found if module.startswith("sqlib."))


def _home(base: str, alias: str) -> str:
    """The module that ``from base import alias`` takes, or takes something out of."""
    if base in ("", "sqlib") or _source(f"{base}.{alias}") is not None:
        return f"{base}.{alias}"
    path = _source(base) if base.startswith("sqlib.") else None
    if path is not None and path.name == "__init__.py":
        for inner, passed in _statements(base, checked=True):
            if passed == alias and inner != base:
                return _home(inner, alias)
    return base


@cache
def _statements(name: str, *, checked: bool = False) -> tuple[tuple[str, str | None], ...]:
    """The imports of a module as (module, name) or (module, None); those of type checkers if `checked`."""
    path = _source(name)
    assert path is not None
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[tuple[str, str | None]] = []
    for node in _nodes(ast.parse(path.read_bytes()), checked):
        if isinstance(node, ast.Import):
            found.extend((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            found.extend((base, alias.name) for alias in node.names)
    return tuple(found)


def _nodes(node: ast.AST, checked: bool) -> Iterator[ast.AST]:
    """All nodes; those that only a type checker sees if `checked`."""
    for child in ast.iter_child_nodes(node):
        if not checked and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes(child, checked)
