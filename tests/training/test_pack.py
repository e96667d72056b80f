"""Crop packs: lossless, seeded, bounded, and refused when wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sqlib.errors import DataError, InputError
from sqlib.training import CropPool, TrainConfig, read_pack, train, write_pack
from sqlib.training.pack import decode, encode


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_coding_is_lossless(image: np.ndarray) -> None:
    assert np.array_equal(decode(encode(image), image.shape), image)


def test_a_pack_holds_the_same_held_out_images_and_aligned_crops(tmp_path: Path, pool: CropPool) -> None:
    made = write_pack(tmp_path / "x2.pack", pool, held_out=2, side=24)
    packed = read_pack(tmp_path / "x2.pack", scale=2, smallest=16)
    training, held_out = packed.split(2)
    assert held_out.names == pool.split(2)[1].names
    assert all(np.array_equal(a, b) for a, b in zip(held_out.hr, pool.split(2)[1].hr, strict=True))
    assert made["crops"] == len(training.hr) and made["held_out"] == 2
    assert made["bytes"] == (tmp_path / "x2.pack").stat().st_size
    assert made["sha256"] == packed.fingerprint()
    where = dict(zip(pool.names, zip(pool.hr, pool.lr, strict=True), strict=True))
    for name, hr, lr in zip(training.names, training.hr, training.lr, strict=True):
        source, _, corner = name.partition("@")
        x, y = map(int, corner.split(","))
        assert np.array_equal(hr, where[source][0][y : y + 24, x : x + 24])
        # Cut from the degraded image: borders saw their real neighbours.
        assert np.array_equal(lr, where[source][1][y // 2 : y // 2 + 12, x // 2 : x // 2 + 12])
    first = {name.partition("@")[0] for name in training.names[:3]}
    assert len(first) == 3, "every image comes once before any comes twice"


def test_a_pack_is_seeded_and_stays_within_its_limit(tmp_path: Path, pool: CropPool) -> None:
    sizes = [
        write_pack(tmp_path / f"{i}", pool, held_out=1, side=24, limit=40_000)["bytes"] for i in range(2)
    ]
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert sizes[0] <= 40_000
    pool.seed = 2
    write_pack(tmp_path / "2", pool, held_out=1, side=24, limit=40_000)
    assert (tmp_path / "2").read_bytes() != (tmp_path / "0").read_bytes()
    with pytest.raises(InputError, match="cannot hold the 1 held-out"):
        write_pack(tmp_path / "3", pool, held_out=1, side=24, limit=1000)
    with pytest.raises(InputError, match="multiple of the scale"):
        write_pack(tmp_path / "3", pool, held_out=1, side=25)
    assert not (tmp_path / "3").exists()


def test_training_on_a_pack_resumes_like_any_other(tmp_path: Path, pool: CropPool, tiny: TrainConfig) -> None:
    write_pack(tmp_path / "x2.pack", pool, held_out=1, side=24)
    packed = read_pack(tmp_path / "x2.pack", scale=2, smallest=16)
    assert train(tiny, packed, tmp_path / "run", log=lambda _line: None)
    with pytest.raises(InputError, match="other images"):
        train(tiny, pool, tmp_path / "run", log=lambda _line: None)


def test_wrong_packs_are_refused(tmp_path: Path, pool: CropPool) -> None:
    path = tmp_path / "x2.pack"
    with pytest.raises(DataError, match="does not exist"):
        read_pack(path, scale=2, smallest=8)
    write_pack(path, pool, held_out=1, side=24)
    with pytest.raises(InputError, match="packed for x2, the configuration is x4"):
        read_pack(path, scale=4, smallest=8)
    with pytest.raises(InputError, match="smaller than a patch of 32"):
        read_pack(path, scale=2, smallest=32)
    content = path.read_bytes()
    path.write_bytes(content[:-10] + b"0123456789")
    with pytest.raises(InputError, match="damaged"):
        read_pack(path, scale=2, smallest=8)
    path.write_bytes(content[:30])
    with pytest.raises(InputError, match="damaged"):
        read_pack(path, scale=2, smallest=8)
    path.write_bytes(b"PNG")
    with pytest.raises(InputError, match="no crop pack"):
        read_pack(path, scale=2, smallest=8)
