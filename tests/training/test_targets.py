"""The teacher's targets: what they are, that they are kept, and which teachers are refused."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import threading
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
    target = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)[0][:]
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


@pytest.mark.parametrize("damage", ["cut", "shorter", "header", "other shape", "0xff"])
def test_a_damaged_target_is_made_anew(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path, damage: str
) -> None:
    (whole,) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    expected, content = whole[:], whole.path.read_bytes()
    other = io.BytesIO()
    np.save(other, expected[:, 1:])
    damaged = {
        "cut": b"\x93NUMPY",
        "shorter": content[:-1],
        "header": content.replace(b"shape", b"sha(e"),
        "other shape": other.getvalue(),
        "0xff": content[: whole.offset] + b"\xff" * (len(content) - whole.offset),
    }
    whole.path.write_bytes(damaged[damage])
    (again,) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    assert np.array_equal(again, expected) and whole.path.read_bytes() == content


def test_there_may_be_more_images_than_open_files(teacher: SRNetwork, tmp_path: Path) -> None:
    """A file is open only while it is read; a limit that is reached is said, not taken for a missing file."""
    resource = pytest.importorskip("resource")
    images = [(f"{i}", np.full((2, 2, 3), i, np.uint8)) for i in range(80)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = max(int(name) for name in os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)  # what is loaded once is loaded
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 40, hard))
    try:
        targets = teacher_targets(teacher, images, scale=2, folder=tmp_path)
        assert [target[:].shape for target in targets] == [(4, 4, 3)] * 80
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(DataError, match=r"cannot be read .Too many open files.; see to it"):
            teacher_targets(teacher, images, scale=2, folder=tmp_path)
        with pytest.raises(DataError, match=r"cannot be read .Too many open files.; see to it"):
            targets[0][:1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_target_is_sliced_like_an_array_until_its_file_is_gone(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path
) -> None:
    (target,) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    array = np.load(target.path)
    assert target.shape == array.shape and target.dtype == array.dtype
    assert np.array_equal(target[3:9, ::2], array[3:9, ::2]) and type(target[3:9]) is np.ndarray
    assert np.asarray(target, np.float32).dtype == np.float32
    target.path.write_bytes(target.path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cannot be read .*the same command again"):
        target[:4]
    target.path.unlink()
    with pytest.raises(DataError, match=r"cannot be read .No such file or directory.; .* is made anew"):
        target[:4]


def test_what_a_cache_holds_stays_valid(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path
) -> None:
    """Hours of computing lie in caches under names of this form."""
    (target,) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    digest = hashlib.sha256(f"1 {teacher.weights_id} x2 (24, 20, 3)".encode() + images[0][1].tobytes())
    assert target.path == tmp_path / f"{digest.hexdigest()}.npy" and len(teacher.weights_id) == 64


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


def test_two_threads_may_share_a_cache(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like two containers on one disk: their process ids are equal."""
    both = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(np, "save", lambda file, array, save=np.save: (both.wait(), save(file, array)))
    failed: list[BaseException] = []

    def fill() -> None:
        try:
            teacher_targets(models.pretrained("edsr-small", scale=2), images, scale=2, folder=tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(list(tmp_path.iterdir())) == len(images)


def test_a_full_disk_is_noticed_first_and_loses_nothing(
    teacher: SRNetwork, images: list[tuple[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for the full disk; it is met when the last bytes are flushed."""
    resource = pytest.importorskip("resource")
    (first,) = teacher_targets(teacher, images[:1], scale=2, folder=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (48 * 48 * 3 * 2 + 100, hard))
    try:
        with pytest.raises(DataError, match=r"cannot be written .*File too large.; make room"):
            teacher_targets(teacher, images[1:2], scale=2, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [first.path]
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _p: type("Usage", (), {"free": 1000})())
        with pytest.raises(DataError, match="MB are free"):
            teacher_targets(teacher, images, scale=2, folder=tmp_path)
    assert len(teacher_targets(teacher, images, scale=2, folder=tmp_path)) == 3


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
