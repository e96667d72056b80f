"""From folders to what a training needs: images, the teacher's targets, weights to start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sqlib import models
from sqlib.errors import InputError
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool, load_images
from sqlib.training.start import find_start
from sqlib.training.targets import teacher_targets

# Images whose features give normalizations the statistics that they begin with.
_SEEN = 32


@dataclass(frozen=True)
class Prepared:
    """What :func:`sqlib.training.train` takes beside a configuration and a folder.

    Attributes
    ----------
    pool : images and targets
    start : tensors to start from, or None
    provenance : where teacher and start come from, for the card
    skipped : (name, reason) of image files that are not used
    """

    pool: CropPool
    start: Mapping[str, Tensor] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[tuple[str, str]] = ()


def prepare(
    config: TrainConfig,
    data: Sequence[str | Path],
    inputs: Sequence[str | Path] = (),
    *,
    start: str | None = None,
    continuing: bool = False,
    device: str = "cpu",
    show: Callable[[str], object] | None = None,
) -> Prepared:
    """Read the images of ``config``, let its teacher enlarge them, and find the weights to start from.

    Parameters
    ----------
    config : TrainConfig
    data : folders of original images, searched deep
    inputs : folders of low-resolution images without original; they need a teacher
    start : instead of ``config.start``: ``NETWORK-xSCALE``, or a path of weights, in our names or a release's
    continuing : the training goes on from a checkpoint: a start is noted for the card and not read
    device : where the teacher runs
    show : gets the licence of a third party's weights, as in `sqlib.models.pretrained`

    Raises
    ------
    DataError
        A folder, the teacher's weights or those to start from are missing; the cache cannot be written.
    InputError
        Unusable images, inputs without a teacher, a teacher that is none, a start that fits nothing.
    """
    if inputs and not config.teacher:
        raise InputError(f"{config.name} has no teacher: images without an original have no target")
    images, skipped = load_images(_one_or_many(data), smallest=config.largest_patch * config.scale)
    extra, more = load_images(_one_or_many(inputs), smallest=config.largest_patch) if inputs else ([], [])
    pool = CropPool.from_images(images, config.scale, config.seed, extra)
    provenance: dict[str, Any] = {}
    tensors, source = None, start or config.start
    if source:
        provenance["start"] = {"from": Path(source).name}
    if source and not continuing:  # before the teacher, which may need hours
        some = pool.lr[:: len(pool.lr) // _SEEN + 1]
        found = find_start(source, config.network, config.scale, images=some, show=show)
        tensors = found.tensors
        if found.function:
            provenance["start"]["taken"] = "function"
    if config.teacher:
        teacher = models.pretrained(config.teacher, scale=config.scale, show=show)
        ships = config.scale in models.available().get(config.teacher, ())
        named = list(zip(pool.names, pool.lr, strict=True))
        pool = pool.with_teacher(
            teacher_targets(teacher, named, scale=config.scale, device=device), config.teacher_share
        )
        provenance["teacher"] = {
            "name": teacher.name,
            "weights_id": teacher.weights_id,
            "licence": teacher.licence or ("this project's own" if ships else "unknown"),
        }
    return Prepared(pool, tensors, provenance, [*skipped, *more])


def _one_or_many(folders: Sequence[str | Path]) -> str | Path | Sequence[str | Path]:
    return folders[0] if len(folders) == 1 else folders
