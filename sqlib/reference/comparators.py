"""Other ways to choose references, as in Table 3 of RefQSR: k-means and a head in the spirit of SCAN.

Each gives a `Clustering`: the members of a cluster become queries of the one that stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sqlib._checks import check_choice, check_integer, check_number
from sqlib.errors import InputError
from sqlib.fit.loop import Group, Task, fit
from sqlib.reference.clustering import Array, Clustering, checked, settle
from sqlib.reference.extractor import FeatureExtractor, check_patches, features, single

_ENTROPY = 5.0
_BATCH = 64


def pixels(patch: Tensor) -> Tensor:
    """A patch (1, 3, h, w) shrunk to 8 x 8 pixels, without its mean colour: 192 numbers."""
    small = F.adaptive_avg_pool2d(patch.float(), 8)
    return (small - small.mean(dim=(2, 3), keepdim=True)).flatten()


def gradients(patch: Tensor) -> Tensor:
    """How much gradient a patch (1, 3, h, w) has in each of eight directions over 180 degrees."""
    gray = patch.float().mean(dim=1)[0]
    y, x = torch.gradient(gray)
    strength = torch.hypot(x, y)
    place = torch.remainder(torch.atan2(y, x), math.pi) / math.pi * 8
    direction = place.long().clamp(max=7).flatten()
    return strength.new_zeros(8).index_add(0, direction, strength.flatten()) / gray.numel()


REPRESENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"pixels": pixels, "gradients": gradients}


def kmeans(
    patches: Sequence[Tensor], clusters: int, *, on: str = "pixels", tau: float = -1.0, seed: int = 0
) -> Clustering:
    """k-means (scikit-learn); of each cluster the member nearest to its centre is the reference.

    Parameters
    ----------
    patches : as for `sqlib.reference.extractor.single`
    clusters : how many; no more than there are patches are made
    on : "pixels" or "gradients", see the functions of these names
    tau : smallest cosine similarity of a query to its reference, in what `on` says; -1: any. The threshold of
        `sqlib.recipes.RefQSR` is not meant and not used here: it is one of the extractor's features.

    Raises
    ------
    InputError
        What `single` refuses, or an option out of range.

    Notes
    -----
    Computed in float32 and on the CPU, wherever the patches are.
    """
    from sklearn.cluster import KMeans

    clusters = check_integer("clusters", clusters, 1, 10**6)
    seed = check_integer("seed", seed, 0, 2**31)
    tau = check_number("tau", tau, -1.0, 1.0)
    check_choice("on", on, REPRESENTATIONS)
    v = checked(torch.stack([REPRESENTATIONS[on](patch.cpu()) for patch in single(patches)]))
    distinct = min(clusters, len(np.unique(v, axis=0)))
    fitted = KMeans(distinct, n_init=4, random_state=seed).fit(v)
    label = fitted.labels_.astype(np.int64)
    distance = np.linalg.norm(v - fitted.cluster_centers_[label], axis=1)
    return by_label(v, label, -distance, tau)


def by_label(v: Array, label: NDArray[np.int64], score: Array, tau: float) -> Clustering:
    """The patch of the best score stands for all of one label; ties go to the smallest index."""
    pointed = np.empty(len(label), np.int64)
    for each in np.unique(label):
        members = np.flatnonzero(label == each)
        pointed[members] = members[score[members].argmax()]
    return settle(v, pointed, tau, chains="promote")


class ScanHead:
    """Clusters like SCAN: of the patches of a class, learned without labels, the surest stands for all.

    Parameters
    ----------
    network : as `train_head` gives; None: the packaged one, trained on crops of BSDS400
    tau : as in `sqlib.reference.clustering.assign`
    """

    def __init__(self, network: nn.Module | None = None, *, tau: float = 0.5) -> None:
        self.tau = check_number("tau", tau, -1.0, 1.0)
        if network is not None and not isinstance(network, nn.Module):
            raise InputError(f"network={network!r}: expected one of train_head's, or None for the packaged")
        self.network = _packaged() if network is None else network

    def __call__(self, patches: Sequence[Tensor]) -> Clustering:
        """Cluster the patches of an image, of any sizes."""
        scores = features(self.network, patches).cpu()
        v = checked(scores)
        sure, label = scores.softmax(1).max(1)
        return by_label(v, label.numpy(), sure.double().numpy(), self.tau)


@cache
def _packaged() -> FeatureExtractor:
    from safetensors.torch import load

    state = load((resources.files("sqlib.reference") / "weights" / "scan.safetensors").read_bytes())
    network = FeatureExtractor(len(state["head.weight"])).eval()
    network.load_state_dict(state)
    return network


def train_head(
    crops: Tensor, start: FeatureExtractor, *, steps: int = 300, seed: int = 0
) -> tuple[FeatureExtractor, tuple[float, ...]]:
    """Classes of texture learned from patches alone, as SCAN does, and the losses on the way.

    The extractor is trained further so that a patch and its nearest neighbour get the same class, and all
    classes are used: minus the logarithm of the product of their probabilities, summed over classes, minus
    5 times the entropy of the mean probabilities.

    Parameters
    ----------
    crops : (N, 3, h, w) in 0..1 to learn from, N at least 2, in any floating dtype
    start : extractor in full precision, whose features say who is whose neighbour; it is not changed
    steps : of 64 pairs each

    Raises
    ------
    InputError
        Crops of another shape, less than two, or values that are not finite; another network to start from.
    """
    check_patches(crops)
    if len(crops) < 2:
        raise InputError(f"crops: {len(crops)} given; expected two or more, for each to have a neighbour")
    if not isinstance(start, FeatureExtractor):
        raise InputError(f"start is {type(start).__name__}; expected a FeatureExtractor in full precision")
    task = _Scan(crops, start, steps, seed)
    losses = fit(task, every=max(1, task.steps // 5), check_every=10).losses
    return task.network.eval(), losses


class _Scan(Task):
    name = "training of the head"

    def __init__(self, crops: Tensor, start: FeatureExtractor, steps: int, seed: int) -> None:
        self.steps = check_integer("steps", steps, 1, 10**6)
        seed = check_integer("seed", seed, 0, 2**31)
        unit = F.normalize(features(start, list(crops)).cpu())
        self.neighbour = (unit @ unit.T).fill_diagonal_(-2).argmax(1)
        self.network = FeatureExtractor(start.head.out_features)
        self.network.load_state_dict(start.state_dict())
        self.crops = crops.detach().to(self.network.head.weight)
        self.generator = torch.Generator().manual_seed(seed)

    def groups(self) -> Sequence[Group]:
        return [Group(list(self.network.parameters()), lambda step: 3e-4)]

    def loss(self, step: int) -> Tensor:
        chosen = torch.randint(len(self.crops), (_BATCH,), generator=self.generator)
        both = self.network(self.crops[torch.cat([chosen, self.neighbour[chosen]])]).softmax(1)
        own, other = both.chunk(2)
        mean = own.mean(0)
        entropy = -(mean * mean.clamp_min(1e-8).log()).sum()
        return -(own * other).sum(1).clamp_min(1e-8).log().mean() - _ENTROPY * entropy

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.generator.set_state(state["generator"])
