r"""Which patches of an image are references, and which query looks at which reference (ClustBlock of RefQSR).

From the features :math:`V`, one row per patch and one column per class of texture (equations 2 and 3):

.. math::

    A = \operatorname{softmax}_{\text{classes}}(V), \qquad
    A' = \operatorname{softmax}_{\text{patches}}(V^\top), \qquad M = A A'.

Patch :math:`i` points at :math:`\arg\max_j M_{ij}`. It becomes a query of that patch if the cosine similarity
of their features is :math:`\tau` or more, and else a reference of its own.

A patch that others point at may itself point elsewhere, alone or in a circle; the paper does not say what it
is then. `assign` has three answers (``chains``), each of which gives references that are no queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib._checks import check_choice, check_number
from sqlib.errors import InputError
from sqlib.reference.extractor import extractor as load_extractor
from sqlib.reference.extractor import features as extract_features

CHAINS = ("promote", "follow", "isolate")

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clustering:
    """Every patch's reference. A reference is its own, never another one's query.

    Attributes
    ----------
    reference : (N,) int64
        Index of each patch's reference; its own where it is one.
    similarity : (N,) float64
        Cosine similarity of its features to its reference's; 1 for a reference.
    features : (N, classes) float64
    """

    reference: NDArray[np.int64]
    similarity: Array
    features: Array

    @property
    def is_query(self) -> NDArray[np.bool_]:
        """(N,) whether a patch is computed with few bits and refined."""
        return self.reference != np.arange(len(self.reference))

    @property
    def references(self) -> NDArray[np.int64]:
        """Indices of the references, ascending."""
        return np.flatnonzero(~self.is_query)

    @property
    def query_share(self) -> float:
        """Queries among all patches, 0 to below 1."""
        return float(self.is_query.mean())


def class_affinity(features: Array) -> Array:
    """A of equation 2, (N, classes): how a patch is spread over the classes; rows sum to 1."""
    return _softmax(checked(features), axis=1)


def patch_affinity(features: Array) -> Array:
    """A' of equation 3, (classes, N): how a class is spread over the patches; rows sum to 1."""
    return _softmax(checked(features).T, axis=1)


def affinity(features: Array) -> Array:
    """M = A A', (N, N): patch i's chance to be replaced by patch j, over their classes; rows sum to 1."""
    return class_affinity(features) @ patch_affinity(features)


def cosine_similarity(features: Array) -> Array:
    """(N, N) of all pairs, -1 to 1; a patch whose features are all 0 has 0 to everything, itself included."""
    v = checked(features)
    # A power of two for each row, which rounds nothing: squares of 1e200 and of 1e-200 are no numbers.
    _, exponent = np.frexp(np.abs(v).max(axis=1, keepdims=True))
    v = np.ldexp(v, -exponent)
    norm = np.linalg.norm(v, axis=1, keepdims=True)
    unit = np.divide(v, norm, out=np.zeros_like(v), where=norm > 0)
    similarity = np.clip(unit @ unit.T, -1.0, 1.0)
    return np.where(similarity > 1 - 1e-12, 1.0, similarity)  # equal features are 1, whatever was rounded


def assign(features: Any, tau: float = 0.5, *, chains: str = "promote") -> Clustering:
    """References and queries from the features of an image's patches.

    Parameters
    ----------
    features : array or tensor (N, classes)
    tau : smallest cosine similarity of a query to its reference, -1 to 1
    chains : what becomes of a patch j that others point at and that points elsewhere itself

        - "promote": every patch that another one points at with enough similarity is a reference;
        - "follow": all go on to where j points, and so on; of a circle the smallest index is the reference.
          The similarity to the reference that is found in the end counts;
        - "isolate": j stays a query, and whoever points at it becomes a reference of its own; of a circle
          the smallest index is a reference.

    Returns
    -------
    Clustering

    Raises
    ------
    InputError
        No patch, features that are no finite matrix, another tau or `chains`.

    Notes
    -----
    Of equal entries of M the smallest index counts. Patches with equal features therefore point at the same
    patch, which need not be one of them: if it is not similar enough, each of them is a reference of its own.
    Time and memory grow with the square of the number of patches.
    """
    tau = check_number("tau", tau, -1.0, 1.0)
    check_choice("chains", chains, CHAINS)
    v = checked(features)
    pointed = _arg_max(affinity(v))
    return settle(v, pointed, tau, chains=chains)


def settle(features: Array, pointed: NDArray[np.int64], tau: float, *, chains: str) -> Clustering:
    """A `Clustering` from where each patch points, by the rules of `assign`; `features` (N, classes)."""
    itself = np.arange(len(pointed))
    similarity = cosine_similarity(features)
    near = similarity >= tau
    if chains == "follow":
        pointed = _roots(pointed)
    pointed = np.where(near[itself, pointed], pointed, itself)
    if chains == "promote":
        chosen = np.unique(pointed[pointed != itself])
        pointed[chosen] = chosen
    elif chains == "isolate":
        roots = _roots(pointed)
        pointed[roots] = roots
        is_reference = pointed == itself
        pointed = np.where(is_reference[pointed], pointed, itself)
    alike = np.where(pointed == itself, 1.0, similarity[itself, pointed])
    return Clustering(pointed.astype(np.int64), alike, features)


def _roots(pointed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where following the pointers ends: a patch that points at itself, or the least index of a circle."""
    least, hop = np.arange(len(pointed)), pointed
    for _ in range(len(pointed).bit_length()):  # doubles the steps made: N or more in the end
        least = np.minimum(least, least[hop])
        hop = hop[hop]
    return least[hop]


def _arg_max(m: Array) -> NDArray[np.int64]:
    """The first column of each row's largest entry, up to the rounding of the product."""
    largest = m.max(axis=1, keepdims=True)
    return np.asarray((m >= largest * (1 - 1e-12)).argmax(axis=1), np.int64)


def _softmax(x: Array, axis: int) -> Array:
    with np.errstate(over="ignore"):  # a difference of -inf is right: its share is 0
        e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def checked(features: Any) -> Array:
    """Features of patches as a matrix (N, classes) of finite numbers, or an `InputError`."""
    try:  # NumPy knows no bfloat16
        v = features.detach().cpu().double() if isinstance(features, Tensor) else features
        v = np.asarray(v, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"features: expected numbers (N, classes): {error}") from None
    if v.ndim != 2 or 0 in v.shape:
        raise InputError(f"features of shape {v.shape}: expected (N, classes) of one patch or more")
    if not np.isfinite(v).all():
        raise InputError("features contain NaN or infinity; look for them in the patches")
    return v


Cluster = Callable[[Sequence[Tensor]], Clustering]
"""What finds references and queries among the patches of an image."""


class ClustBlock:
    """Clusters the patches of an image: features, affinity, references.

    Parameters
    ----------
    extractor : what `sqlib.reference.extractor.extractor` accepts, or any module from patches (N, 3, h, w) to
        features (N, classes)
    tau, chains : as in `assign`

    Examples
    --------
    >>> import torch
    >>> patch = torch.rand(3, 72, 72)
    >>> ClustBlock()([patch, patch, patch]).reference
    array([0, 0, 0])
    """

    def __init__(
        self,
        extractor: str | PathLike[str] | nn.Module = "textures",
        tau: float = 0.5,
        *,
        chains: str = "promote",
    ) -> None:
        assign(np.zeros((1, 1)), tau, chains=chains)  # refuses what it would refuse later
        self.extract = extractor if isinstance(extractor, nn.Module) else load_extractor(extractor)
        self.tau, self.chains = float(tau), chains

    def __call__(self, patches: Sequence[Tensor]) -> Clustering:
        """Cluster patches (3, h, w) or (1, 3, h, w) of any sizes in 0..1, those of a size in one batch."""
        return assign(extract_features(self.extract, patches), self.tau, chains=self.chains)
