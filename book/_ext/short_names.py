"""Sphinx extension: names in sqlib's docstrings may be written short, as the code around them writes them.

``InputError`` in a docstring of ``sqlib.metrics`` links to ``sqlib.errors.InputError`` if that is the
only documented object of this name. A name that exists in its module but has no entry in the API page
stays as text. Anything else stays unresolved, which the strict build reports: a docstring cannot refer
to what is not there.
"""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def _exists(module: str, context: str, target: str) -> bool:
    """Whether ``target`` can be reached from the module, from the class around it, or as an absolute name."""
    parts = target.split(".")
    places = [(module, target), (module, f"{context}.{target}")] if module else []
    if parts[0] == "sqlib":
        places += [(".".join(parts[:k]), ".".join(parts[k:])) for k in range(len(parts), 0, -1)]
    for name, attributes in places:
        try:
            here: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        try:
            for attribute in filter(None, attributes.split(".")):
                here = getattr(here, attribute)
        except AttributeError:
            continue
        return True
    return False


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Find the one documented object that a short name means."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".~")
    objects = env.get_domain("py").objects  # type: ignore[attr-defined]
    last = target.rsplit(".", 1)[-1]
    found = [name for name in objects if name == target or name.endswith("." + target)]
    if not found and target.startswith("sqlib."):
        found = [name for name in objects if name.endswith("." + last)]
    if len(found) == 1:
        entry = objects[found[0]]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])
    if found or _exists(node.get("py:module") or "", node.get("py:class") or "", target):
        return content
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
