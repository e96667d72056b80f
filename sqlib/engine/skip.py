"""Which call sites stay in full precision: the user's patterns, the network's own, or a general rule."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sqlib.engine.flow import Upsampler
from sqlib.engine.site import Site
from sqlib.errors import InputError

UNSUPPORTED = "operation not quantized by sqlib"
QUANTIZED = "quantized"
FEEDS = "default: feeds the first upsampling"
FROM_UPSAMPLING = "default: from the first upsampling on"


def candidates(site: Site) -> list[str]:
    """Names a pattern may match: the site, the site without "#k", and every module that contains it."""
    parts = site.module.split(".") if site.module else []
    parents = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return list(dict.fromkeys([site.name, site.base, *parents]))


def first_match(site: Site, patterns: Iterable[str]) -> str | None:
    """The first pattern that matches the site, or None."""
    names = candidates(site)
    return next((p for p in patterns if any(fnmatchcase(n, p) for n in names)), None)


def check_patterns(skip: object) -> tuple[str, ...]:
    """Return `skip` as a tuple of patterns, or raise `InputError`."""
    if isinstance(skip, str):
        return (skip,)
    if isinstance(skip, Iterable):
        patterns = tuple(skip)
        if all(isinstance(p, str) and p for p in patterns):
            return patterns
    raise InputError(
        f"skip={skip!r}: expected a list of name patterns, e.g. ['head*', 'tail.0']; [] skips nothing"
    )


def require_matches(sites: Sequence[Site], patterns: Iterable[str]) -> None:
    """Raise `InputError` for the first pattern that matches no call site, naming near ones."""
    known = list(dict.fromkeys(name for site in sites for name in candidates(site)))
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in known):
            continue
        near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:3]
        raise InputError(
            f"skip pattern {pattern!r} matches none of the {len(sites)} call sites; "
            f"near matches: {', '.join(near)}"
        )


def apply_patterns(sites: Iterable[Site], patterns: Sequence[str], source: str) -> None:
    """Mark every site by the patterns; `source` says in the report where they come from."""
    for site in sites:
        found = first_match(site, patterns) if site.supported else None
        site.active = site.supported and found is None
        if not site.supported:
            site.rule = site.rule or UNSUPPORTED
        else:
            site.rule = QUANTIZED if found is None else f"{source}: {found}"


def apply_default(sites: Sequence[Site], upsampler: Upsampler | None) -> None:
    """The rule for networks nobody foresaw.

    Skipped are the first convolution and the upsampler: the convolution that feeds the first upsampling
    (`sqlib.engine.flow.Flow.upsampler`), and everything from there on; without one, the last convolution.
    A rule that would leave nothing to quantize gives way to the next: first and last convolution, the first
    alone, nothing.

    Parameters
    ----------
    sites : sequence of Site
        In the order of their calls; their `active` and `rule` are set.
    upsampler : Upsampler or None
        Where the network's upsampler begins.
    """
    supported = [s for s in sites if s.supported]
    convolutions = [s for s in supported if s.op.startswith("conv")]
    rules: list[dict[str, str]] = []
    if convolutions:
        first, last = convolutions[0], convolutions[-1]
        reason = "default: first convolution"
        if upsampler is not None:
            late = {s.name: FROM_UPSAMPLING for s in supported if s.order >= upsampler.start}
            feeding = {s.name: FEEDS for s in supported if upsampler.feeds and s.order == upsampler.start}
            rules.append({**late, **feeding, first.name: reason})
        rules.append({last.name: "default: last convolution", first.name: reason})
        rules.append({first.name: reason})
    rules.append({})
    skipped = next(r for r in rules if len(r) < len(supported) or not r)
    for site in sites:
        site.active = site.supported and site.name not in skipped
        site.rule = skipped.get(site.name, QUANTIZED) if site.supported else site.rule or UNSUPPORTED


def apply_like(site: Site, known: Iterable[Site], patterns: Sequence[str] | None, source: str) -> None:
    """Decide a site first seen in a later batch: by the patterns, else like its sibling sites."""
    if patterns is not None:
        apply_patterns([site], patterns, source)
        return
    like = next((k for k in known if k.base == site.base and k is not site), None)
    site.active = site.supported and (like is None or like.active)
    rule = QUANTIZED if like is None else like.rule
    site.rule = rule if site.supported else site.rule or UNSUPPORTED
