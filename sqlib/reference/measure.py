"""What ClustBlock does to sets of images: shares of queries by rule and threshold, and other methods.

``python -m sqlib.reference.measure`` trains the head of `comparators.ScanHead`, ``weights/scan.safetensors``
with its card, and writes ``records/clustering.json``, which `record` reads: a few minutes on one core. Needs
Urban100, DIV2K_LRx4 and BSDS400 in ``$SQLIB_DATA``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from sqlib import datasets
from sqlib.patches import Grid, split
from sqlib.reference.clustering import CHAINS, ClustBlock, Clustering, assign, cosine_similarity, settle
from sqlib.reference.comparators import ScanHead, kmeans, train_head
from sqlib.reference.extractor import FeatureExtractor, extractor, features

TAUS = tuple(round(-1 + 0.125 * step, 3) for step in range(17))
SETS = {"builtin": (72, 6), "urban100": (72, 6), "div2k-lrx4": (96, 6)}
"""Sets with side and overlap of their patches; DIV2K's low resolution at x4 is that of 2K images."""

Image = NDArray[np.uint8]

SIDES = (48, 72, 96, 128, 192, 256)
"""Sides of patches that `sizes` compares."""


def record() -> dict[str, Any]:
    """What was measured; see `measure`."""
    text = (resources.files("sqlib.reference") / "records" / "clustering.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def images_of(name: str) -> list[Image]:
    """What is cut into patches: low resolution at x4; the shipped photographs as they are."""
    data = datasets.load(name)
    return [data.hr(i) if name == "builtin" else data.lr(i, 4) for i in range(len(data))]


def patches_of(image: Image, patch: int, overlap: int) -> list[Tensor]:
    """Patches (3, h, w) in 0..1 of a low-resolution image (H, W, 3)."""
    whole = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    return split(whole, Grid(image.shape[0], image.shape[1], patch, overlap))


def shares(images: Sequence[Image], patch: int, overlap: int) -> dict[str, Any]:
    """Queries of a set: per image and rule at tau 0.5, and per threshold and rule.

    Returns
    -------
    dict
        ``patches`` (per image), ``queries`` (rule to numbers per image), ``similarity`` (rule to the mean
        over queries), ``tau`` (rule to shares of all patches, one per threshold of `TAUS`), ``classes``
        (shares with only so many of the extractor's classes, as text; the mean over six choices of them).
    """
    extract = extractor()
    found = [features(extract, patches_of(image, patch, overlap)) for image in images]
    total = sum(len(v) for v in found)
    result: dict[str, Any] = {"patch": patch, "overlap": overlap, "patches": [len(v) for v in found]}
    result |= {"queries": {}, "similarity": {}, "tau": {}, "classes": {}}
    for chains in CHAINS:
        half = [assign(v, 0.5, chains=chains) for v in found]
        result["queries"][chains] = [int(c.is_query.sum()) for c in half]
        result["similarity"][chains] = _mean(np.concatenate([c.similarity[c.is_query] for c in half]))
        result["tau"][chains] = [
            round(sum(int(assign(v, tau, chains=chains).is_query.sum()) for v in found) / total, 4)
            for tau in TAUS
        ]
    draw = np.random.default_rng(0)
    for count in range(2, found[0].shape[1] + 1):
        kept = [np.sort(draw.choice(found[0].shape[1], count, replace=False)) for _ in range(6)]
        queries = sum(int(assign(v[:, each], 0.5).is_query.sum()) for v in found for each in kept)
        result["classes"][str(count)] = round(queries / (6 * total), 4)
    return result


def sizes(images: Sequence[Image], overlap: int = 6) -> dict[str, float]:
    """Share of queries of a set at tau 0.5, by the side of a patch, as text."""
    extract = extractor()
    result = {}
    for side in SIDES:
        found = [assign(features(extract, patches_of(image, side, overlap)), 0.5) for image in images]
        queries = sum(int(c.is_query.sum()) for c in found)
        result[str(side)] = round(queries / sum(len(c.reference) for c in found), 4)
    return result


def compare(images: Sequence[Image], patch: int, overlap: int, head: ScanHead) -> dict[str, dict[str, float]]:
    """Ways to choose references, all but the head with as many per image as ClustBlock has.

    Returns
    -------
    dict
        By method: ``share`` of queries, mean cosine ``similarity`` of a query's features to its reference's,
        and ``unmatched``, the share of all queries' detail that is not in their references.
    """
    block, draw = ClustBlock(), random.Random(0)
    methods: dict[str, Callable[[list[Tensor], Clustering], Clustering]] = {
        "ClustBlock": lambda patches, own: own,
        "its references, dealt at random": lambda patches, own: _dealt(own, list(own.references), draw),
        "its references, the best for each query": _best,
        "any patches, dealt at random": lambda patches, own: _at_random(own, draw),
        "k-means on pixels": lambda patches, own: kmeans(patches, len(own.references)),
        "k-means on gradients": lambda patches, own: kmeans(patches, len(own.references), on="gradients"),
        "SCAN-like head": lambda patches, own: head(patches),
    }
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    total = 0
    for image in images:
        patches = patches_of(image, patch, overlap)
        own, total = block(patches), total + len(patches)
        similarity = cosine_similarity(own.features)
        for name, method in methods.items():
            other = method(patches, own)
            for query in np.flatnonzero(other.is_query):
                reference = int(other.reference[query])
                found = detail(patches[query], patches[reference])
                seen[name].append((float(similarity[query, reference]), *found))
    result = {}
    for name, values in seen.items():
        similar, lacking, whole = np.array(values).reshape(-1, 3).T
        unmatched = round(float(lacking.sum() / whole.sum()), 4) if len(whole) else float("nan")
        share = round(len(values) / total, 4)
        result[name] = {"share": share, "similarity": _mean(similar), "unmatched": unmatched}
    return result


def detail(query: Tensor, reference: Tensor, *, block: int = 6) -> tuple[float, float]:
    """Detail of a query that is not found anywhere in its reference, and all of it, as sums of squares.

    Blocks of the gray query, without their mean, are each compared with the blocks of the reference at every
    second pixel; the squared distances to the best ones are summed.

    Parameters
    ----------
    query, reference : (3, h, w), of any sizes of `block` pixels or more
    """
    own, others = _blocks(query, block, block), _blocks(reference, block, 2)
    return float(torch.cdist(own, others).square().amin(1).sum()), float(own.square().sum())


def _blocks(patch: Tensor, block: int, step: int) -> Tensor:
    found = F.unfold(patch.mean(0)[None, None], block, stride=step)[0].T
    return found - found.mean(1, keepdim=True)


def _at_random(own: Clustering, draw: random.Random) -> Clustering:
    """As many references, any of the patches; every query has any of them."""
    return _dealt(own, draw.sample(range(len(own.reference)), len(own.references)), draw)


def _dealt(own: Clustering, references: Sequence[int], draw: random.Random) -> Clustering:
    """Every other patch has any of these references."""
    pointed = [i if i in references else draw.choice(references) for i in range(len(own.reference))]
    return settle(own.features, np.array(pointed, np.int64), -1.0, chains="follow")


def _best(patches: list[Tensor], own: Clustering) -> Clustering:
    """Every query has the reference that lacks the least of its detail."""
    pointed = own.reference.copy()
    for query in np.flatnonzero(own.is_query):
        pointed[query] = min(own.references, key=lambda j: detail(patches[query], patches[j])[0])
    return settle(own.features, pointed, -1.0, chains="follow")


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else float("nan")


def trained_head(crops: int = 400) -> tuple[FeatureExtractor, dict[str, Any]]:
    """The SCAN-like head, trained on crops of 72 pixels of BSDS400 (about a minute), and its card."""
    data, draw = datasets.load("bsds400"), random.Random(0)
    found = []
    for i in range(min(crops, len(data))):
        image = torch.from_numpy(data.hr(i)).permute(2, 0, 1).float() / 255
        top, left = (draw.randrange(length - 72) for length in image.shape[1:])
        found.append(image[:, top : top + 72, left : left + 72])
    start = FeatureExtractor(len(features(extractor(), found[:1])[0]))
    start.load_state_dict(extractor().network.state_dict())
    head, losses = train_head(torch.stack(found), start)
    return head, {
        "name": "scan",
        "network": "FeatureExtractor",
        "parameters": sum(p.numel() for p in head.parameters()),
        "data": "BSDS500 without b100 (Arbelaez et al., TPAMI 2011), a crop of 72 pixels of each image",
        "crops": len(found),
        "start": "textures.safetensors, in full precision",
        "steps": len(losses),
        "seed": 0,
        "loss": {"first": losses[0], "last": losses[-1]},
        "torch": torch.__version__,
        "licence": "Weights trained by this project, under its licence. The images are for research use and "
        "are not part of it.",
    }


def measure() -> dict[str, Any]:
    """Everything.

    Returns
    -------
    dict
        ``taus``; ``sets`` (`shares` of each of `SETS`), ``sizes`` (`sizes` of each) and ``methods``
        (`compare` on Urban100).
    """
    sets = {name: images_of(name) for name in SETS}
    return {
        "taus": TAUS,
        "sets": {name: shares(images, *SETS[name]) for name, images in sets.items()},
        "sizes": {name: sizes(images) for name, images in sets.items()},
        "methods": compare(sets["urban100"], *SETS["urban100"], ScanHead()),
    }


if __name__ == "__main__":
    here = Path(__file__).parent
    head, card = trained_head()
    save_file(head.state_dict(), here / "weights" / "scan.safetensors")
    (here / "weights" / "scan.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    (here / "records" / "clustering.json").write_text(json.dumps(measure(), indent=1) + "\n", "utf-8")
