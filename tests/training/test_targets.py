"""The teacher's targets: what they are, that they are kept, and which teachers are refused."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from sqlib import datasets, models
from sqlib.errors import DataError, InputError
from sqlib.models import SRNetwork
from sqlib.resize import imresize
from sqlib.training import CropPool, teacher_targets
from sqlib.training.targets import enlarge


@pytest.fixture(scope="module")
def images() -> list[tuple[str, np.ndarray]]:
    pairs = list(datasets.load("builtin").pairs(2))[:3]
    return [(pair.name, np.ascontiguousarray(pair.lr[:24, : 20 + 4 * i])) for i, pair in enumerate(pairs)]


@pytest.fixture(scope="module")
def teacher() -> SRNetwork:
    return models.pretrained("edsr-small", scale=2)


def test_a_target_is_the_mean_over_eight_orientations(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path
) -> None:
    (target, *_) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    x = images[0][1].astype(np.float32) / 255
    parts = []
    for turns in range(4):
        for flip in (False, True):
            turned = np.rot90(x, turns)
            turned = turned[:, ::-1] if flip else turned
            with torch.inference_mode():
                out = (
                    teacher(torch.from_numpy(turned.copy()).permute(2, 0, 1)[None])[0]
                    .permute(1, 2, 0)
                    .numpy()
                )
            parts.append(np.rot90(out[:, ::-1] if flip else out, -turns))
    expected = 255 * np.mean(parts, axis=0)
    assert target.dtype == np.float16 and target.shape == (48, 40, 3)
    assert np.abs(target.astype(np.float32) - expected).max() < 0.13  # float16 between 128 and 256
    # Symmetric like a photograph: the target of a turned image is the turned target.
    turned = enlarge(teacher, np.rot90(images[0][1]), torch.device("cpu"))
    assert np.abs(turned.astype(np.float32) - np.rot90(target)).max() < 0.13


def test_targets_are_computed_once(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = teacher_targets(teacher, images[:2], scale=2, folder=tmp_path)
    calls = []
    monkeypatch.setattr(
        "sqlib.training.targets.enlarge",
        lambda network, image, device: calls.append(image.shape) or enlarge(network, image, device),
    )
    again = teacher_targets(teacher, images, scale=2, folder=tmp_path)
    assert calls == [images[2][1].shape]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=False))
    # A file that was cut off is made anew.
    damaged = next(tmp_path.glob("*.npy"))
    damaged.unlink()  # the old content is mapped
    damaged.write_bytes(b"\x93NUMPY")
    whole = teacher_targets(teacher, images, scale=2, folder=tmp_path)
    assert len(calls) == 2 and all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))


def _fill(folder: str, images: list[tuple[str, np.ndarray]]) -> None:
    torch.set_num_threads(1)
    teacher_targets(models.pretrained("edsr-small", scale=2), images, scale=2, folder=folder)


def test_two_trainings_may_share_a_cache(images: list[tuple[str, np.ndarray]], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fill, args=(str(tmp_path), images)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(tmp_path.iterdir())) == len(images), "nothing half-written stays behind"


def test_a_full_disk_is_noticed_first_and_loses_nothing(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    saved = np.save

    def full(file: object, array: np.ndarray) -> None:
        saved(file, array[:1])  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(DataError, match=r"cannot be written .No space left on device.; make room"):
            teacher_targets(teacher, images, scale=2, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _p: type("Usage", (), {"free": 1000})())
        with pytest.raises(DataError, match="MB are free"):
            teacher_targets(teacher, images, scale=2, folder=tmp_path)
    assert len(teacher_targets(teacher, images, scale=2, folder=tmp_path)) == 3


class Scaled(SRNetwork):
    """A teacher that computes in 0..255."""

    name, scale, weights_id = "scaled", 2, "scaled"

    def __init__(self, inner: SRNetwork) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x / 255) * 255


def test_what_is_no_teacher_is_refused(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="enlarges x2, the network to be trained x4; give a teacher for x4"):
        teacher_targets(teacher, images, scale=4, folder=tmp_path)
    # edsr-small's own mean makes the picture of an input that is 255 times too dark wrong by a lot.
    for wrong in (Scaled(teacher), models.create("srresnet", scale=2)):
        with pytest.raises(InputError, match=r"does not enlarge .* must take and give RGB in 0..1"):
            teacher_targets(wrong, images, scale=2, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_batches_mix_teacher_and_original(teacher: SRNetwork, images: list[tuple[str, np.ndarray]]) -> None:
    """Constant planes: 0.75 x teacher + 0.25 x original, the teacher alone where there is no original."""
    originals = [("a", np.full((40, 40, 3), 100, np.uint8))]
    pool = CropPool.from_images(originals, 2, 1, inputs=[("b", np.full((20, 20, 3), 7, np.uint8))])
    taught = [np.full((40, 40, 3), 60, np.float16), np.full((40, 40, 3), 9, np.float16)]
    pool = pool.with_teacher(taught, 0.75)
    lr, target = pool.batch(0, 64, 8)
    assert target.dtype == torch.float32 and target.shape == (64, 3, 16, 16)
    for k in range(64):
        assert torch.equal(target[k], torch.full((3, 16, 16), 70.0 if int(lr[k, 0, 0, 0]) == 100 else 9.0))
    assert {int(lr[k, 0, 0, 0]) for k in range(64)} == {100, 7}
    with pytest.raises(InputError, match=r"got 1 targets and a share of 0.5 for 2 images"):
        pool.with_teacher(taught[:1], 0.5)


def test_crops_of_targets_are_aligned_with_the_inputs() -> None:
    """The teacher is cubic interpolation here: each crop's target is the enlarged crop, away from borders."""
    photo = next(iter(datasets.load("builtin").pairs(2)))
    pool = CropPool.from_images([("photo", photo.hr[:80, :64])], 2, 3)
    enlarged = imresize(pool.lr[0], 2).astype(np.float16)
    lr, target = pool.with_teacher([enlarged], 1.0).batch(5, 6, 12)
    for k in range(6):
        again = imresize(np.ascontiguousarray(lr[k].permute(1, 2, 0).numpy()), 2).astype(np.float32)
        got = target[k].permute(1, 2, 0).numpy()
        assert np.abs(again - got)[4:-4, 4:-4].max() <= 1


def test_a_held_out_original_is_no_input_either() -> None:
    rng = np.random.default_rng(0)
    photos = [(f"{i}", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for i in range(4)]
    pool = CropPool.from_images(photos, 2, seed=3, inputs=photos)
    training, held_out = pool.split(1)
    assert len(held_out.names) == 1 and len(training.names) == 6
    assert held_out.names[0] not in training.names
