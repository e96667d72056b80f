"""Image sets are found by layout, named truthfully, fingerprinted by pixels; calibration is reproducible."""

from __future__ import annotations

import functools
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sqlib import datasets
from sqlib.datasets import _catalogue, _load
from sqlib.errors import DataError, InputError
from sqlib.images import write_image
from sqlib.resize import downscale

SET5 = ("baby", "bird", "butterfly", "head", "woman")


def picture(seed: int, height: int = 25, width: int = 38) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def small(seed: int, scale: int) -> np.ndarray:
    """A low-resolution version of `picture(seed)` that is not ours, by one gray level."""
    height, width = (side // scale * scale for side in picture(seed).shape[:2])
    return downscale(picture(seed)[:height, :width], scale) ^ 1


def put(folder: Path, names: list[str] | tuple[str, ...], pattern: str = "{}.png") -> None:
    """One distinct picture per name."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        write_image(folder / pattern.format(name), picture(seed))


# --- layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("benchmarks/Set5/HR", "{}.png"),
        ("benchmark/Set5/HR", "{}.png"),
        ("testsets/Set5/HR", "{}.bmp"),
        ("Set5/GTmod12", "{}.png"),
        ("Set5/original", "{}.webp"),
        ("set5/hr", "{}.png"),
        ("SET5", "{}_GT.bmp"),
        ("Set5", "{}.png"),
        ("Set5/HR", "{}_HR.png"),
        ("Set5/image_SRF_4", "{}_SRF_4_HR.png"),
    ],
)
def test_layouts(tmp_path: Path, no_data: Path, folder: str, pattern: str) -> None:
    put(tmp_path / folder, SET5, pattern)
    found = datasets.load("set5", data_dir=tmp_path)
    assert found.name == "set5"
    assert found.names == SET5
    assert np.array_equal(found.hr(2), picture(2))


def test_the_set_folder_itself_may_be_given(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    assert datasets.load("set5", data_dir=tmp_path / "Set5").names == SET5


@pytest.mark.parametrize("folder", ["B100", "BSD100", "BSDS100"])
def test_names_of_the_berkeley_set(tmp_path: Path, no_data: Path, folder: str) -> None:
    put(tmp_path / folder / "HR", ["101085", "101087"])
    assert datasets.load("b100", data_dir=tmp_path).name == "b100[2]"


def test_div2k_ranges(tmp_path: Path, no_data: Path) -> None:
    for folder in ("DIV2K_train_HR", "DIV2K/DIV2K_valid_HR"):
        put(tmp_path / folder, ["0000", "0001", "0800", "0801", "0900", "0901", "overview"])
    put(tmp_path / "DIV2K_LRx4", ["0900", "0901", "1000", "1001"])
    assert datasets.load("div2k", data_dir=tmp_path).names == ("0001", "0800")
    assert datasets.load("div2k-valid", data_dir=tmp_path).names == ("0801", "0900")
    assert datasets.load("div2k-lrx4", data_dir=tmp_path).names == ("0901", "1000")


def test_parts_of_div8k(tmp_path: Path, no_data: Path) -> None:
    """Shrunken images keep their numbers in DIV8K, and low resolution may lie beside them."""
    for folder in ("benchmark/Test2K/HR", "test4k/hr"):
        put(tmp_path / folder, ["1200", "1201", "1300", "1301", "1400", "1401", "overview"])
    put(tmp_path / "test4k" / "LR_bicubic" / "X4", ["1301", "1400"], "{}x4.png")
    assert datasets.load("test2k", data_dir=tmp_path).names == ("1201", "1300")
    found = datasets.load("Test4K", data_dir=tmp_path)
    assert (found.name, found.names) == ("test4k[2]", ("1301", "1400"))
    assert [sorted(item.lr) for item in found.items] == [[4], [4]]
    put(tmp_path / "full" / "Test2K" / "HR", [str(number) for number in range(1201, 1301)])
    assert datasets.load("test2k", data_dir=tmp_path / "full").name == "test2k"


def test_other_files_of_a_selfexsr_folder_are_left_out(tmp_path: Path, no_data: Path) -> None:
    folder = tmp_path / "Urban100" / "image_SRF_4"
    put(folder, ["img_001", "img_002"], "{}_SRF_4_HR.png")
    put(folder, ["img_001", "img_002"], "{}_SRF_4_SelfExSR.png")
    for seed, name in enumerate(("img_001", "img_002")):
        write_image(folder / f"{name}_SRF_4_LR.png", small(seed, 4))
    found = datasets.load("urban100", data_dir=tmp_path)
    assert found.names == ("img_001", "img_002")
    assert np.array_equal(found.pair(1, 4).lr, small(1, 4))
    assert np.array_equal(found.pair(1, 2).lr, downscale(picture(1), 2))


def test_hidden_and_foreign_files_are_ignored(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    (tmp_path / "Set5" / "HR" / "._baby.png").write_bytes(b"resource fork")
    (tmp_path / "Set5" / "HR" / "notes.txt").write_text("text")
    assert datasets.load("set5", data_dir=tmp_path).names == SET5


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("LR_bicubic/X2", "{}x2.png"),
        ("LR/x2", "{}.png"),
        ("LRbicx2", "{}.png"),
        ("LR_bicubic_X2", "{}_LR.png"),
    ],
)
def test_distributed_low_resolution_files_are_used(
    tmp_path: Path, no_data: Path, folder: str, pattern: str
) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    (tmp_path / "Set5" / folder).mkdir(parents=True)
    write_image(tmp_path / "Set5" / folder / pattern.format("bird"), small(1, 2))
    found = datasets.load("set5", data_dir=tmp_path)
    assert np.array_equal(found.pair(1, 2).lr, small(1, 2))
    assert np.array_equal(found.lr(1, 2), small(1, 2))
    assert np.array_equal(found.pair(0, 2).lr, downscale(picture(0), 2))
    assert np.array_equal(found.pair(1, 3).lr, downscale(picture(1), 3))


def test_div2k_low_resolution_beside_the_originals(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "DIV2K_train_HR", ["0001"])
    (tmp_path / "DIV2K_train_LR_bicubic" / "X2").mkdir(parents=True)
    write_image(tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "0001x2.png", small(0, 2))
    assert np.array_equal(datasets.load("div2k", data_dir=tmp_path).pair(0, 2).lr, small(0, 2))


def test_low_resolution_of_the_wrong_size(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    put(tmp_path / "Set5" / "LR_bicubic" / "X2", SET5, "{}x2.png")
    with pytest.raises(InputError, match=r"babyx2\.png has 25 x 38 pixels, expected 12 x 19"):
        datasets.load("set5", data_dir=tmp_path).pair(0, 2)


def test_low_resolution_of_another_picture_or_degradation(tmp_path: Path, no_data: Path) -> None:
    """Else its scores stand under the name of the set."""
    put(tmp_path / "Set5" / "HR", SET5)
    (tmp_path / "Set5" / "LR_bicubic" / "X2").mkdir(parents=True)
    for name, low in {"baby": small(1, 2), "bird": picture(1)[:24:2, ::2]}.items():
        write_image(tmp_path / "Set5" / "LR_bicubic" / "X2" / f"{name}x2.png", low)
    found = datasets.load("set5", data_dir=tmp_path)
    for index, name in enumerate(("baby", "bird")):
        with pytest.raises(InputError, match=rf"{name}x2\.png differs by .* gray levels .*{name}\.png"):
            found.pair(index, 2)


def test_ambiguous_files(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    put(tmp_path / "Set5" / "HR", ["baby"], "{}.bmp")
    with pytest.raises(DataError, match="both image 'baby'"):
        datasets.load("set5", data_dir=tmp_path)


def test_more_images_than_the_set_has(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", [*SET5, "zebra"])
    with pytest.raises(DataError, match="holds 6 images, but set5 has 5"):
        datasets.load("set5", data_dir=tmp_path)
    assert len(datasets.from_folder(tmp_path / "Set5" / "HR")) == 6


# --- the set as an object --------------------------------------------------------------------------------


def test_true_names(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    whole = datasets.load("set5", data_dir=tmp_path)
    assert whole.subset(5).name == "set5"
    assert whole.subset(2).name == "set5[2]"
    assert whole.subset(2).names == ("baby", "bird")
    assert whole.crop(16).name == "set5@16"
    assert whole.subset(2).crop(16).name == "set5[2]@16"
    (tmp_path / "Set5" / "HR" / "head.png").unlink()
    assert datasets.load("set5", data_dir=tmp_path).name == "set5[4]"


def test_pairs_fit_together() -> None:
    for scale in (2, 3, 4):
        for pair in datasets.load("builtin").subset(2).crop(95).pairs(scale):
            assert pair.hr.shape == (95 // scale * scale, 95 // scale * scale, 3)
            assert np.array_equal(pair.lr, downscale(pair.hr, scale))
            assert pair.hr.dtype == pair.lr.dtype == np.uint8


def test_centre_crop(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    found = datasets.load("set5", data_dir=tmp_path)
    assert np.array_equal(found.crop(10).hr(0), picture(0)[7:17, 14:24])
    with pytest.raises(InputError, match="baby: 25 x 38 pixels, smaller than the crop of 26"):
        found.crop(26).hr(0)
    for size in (0, "8", 2.5, True, None):
        with pytest.raises(InputError, match=f"crop size is {size!r}"):
            found.crop(size)


@pytest.mark.parametrize("n", [0, -1, 8, "2", 2.5, True, None])
def test_bad_subset(n: object) -> None:
    with pytest.raises(InputError, match=f"subset of {n!r} images"):
        datasets.load("builtin").subset(n)


def test_image_smaller_than_one_block_is_named(tmp_path: Path, no_data: Path) -> None:
    write_image(tmp_path / "dot.png", picture(0, 1, 1))
    with pytest.raises(InputError, match=r"dot: .*1 x 1 pixels is smaller than one 4 x 4 block"):
        datasets.from_folder(tmp_path).pair(0, 4)


def test_damaged_image_is_named(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    path = tmp_path / "Set5" / "HR" / "bird.png"
    path.write_bytes(path.read_bytes()[:400])
    found = datasets.load("set5", data_dir=tmp_path)
    assert found.hr(0).shape == (25, 38, 3)
    with pytest.raises(InputError, match=r"bird\.png"):
        list(found.pairs(2))


def test_gray_images_get_three_channels(tmp_path: Path, no_data: Path) -> None:
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "gray.png")
    pair = datasets.from_folder(tmp_path).pair(0, 2)
    assert pair.hr.shape == (24, 38, 3)
    assert np.array_equal(pair.hr[..., 0], pair.hr[..., 2])
    assert np.array_equal(pair.lr[..., 0], pair.lr[..., 2])


def test_every_image_of_a_folder_is_found(tmp_path: Path) -> None:
    names = ["a.tif", "b.TIFF", "c\nd.png", "e f.bmp"]
    for seed, name in enumerate(names):
        Image.fromarray(picture(seed)).save(tmp_path / name)
    found = datasets.from_folder(tmp_path)
    assert found.names == ("a", "b", "c\nd", "e f")
    assert all(np.array_equal(found.hr(seed), picture(seed)) for seed in range(4))


def test_empty_folder_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no PNG, BMP, JPEG, WebP or TIFF"):
        datasets.from_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        datasets.from_folder(tmp_path / "none")


# --- fingerprints ----------------------------------------------------------------------------------------


def test_fingerprint_is_of_pixels_only(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "a" / "Set5" / "HR", SET5)
    put(tmp_path / "b" / "Set5" / "GTmod12", ["e", "d", "c", "b", "a"], "{}.webp")
    for seed, name in enumerate(["e", "d", "c", "b", "a"]):  # other names, order, format and crop
        write_image(tmp_path / "b" / "Set5" / "GTmod12" / f"{name}.webp", picture(seed)[:24, :36])
    a = datasets.load("set5", data_dir=tmp_path / "a")
    b = datasets.load("set5", data_dir=tmp_path / "b")
    assert a.fingerprint() == b.fingerprint()
    assert a.fingerprint(4) == b.fingerprint(4)  # 24 x 36 both times
    assert a.fingerprint(2) != b.fingerprint(2)  # 24 x 38 against 24 x 36
    assert a.fingerprint() != a.fingerprint(4)
    changed = picture(3)
    changed[0, 0, 0] ^= 1
    write_image(tmp_path / "a" / "Set5" / "HR" / "head.png", changed)
    assert datasets.load("set5", data_dir=tmp_path / "a").fingerprint() != a.fingerprint()


def test_fingerprint_of_a_scale_sees_the_low_resolution_files(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    made = datasets.load("set5", data_dir=tmp_path)
    before = made.fingerprint(), made.fingerprint(2)
    (tmp_path / "Set5" / "LRbicx2").mkdir()
    for name, pair in zip(SET5, made.pairs(2)):
        write_image(tmp_path / "Set5" / "LRbicx2" / f"{name}.png", pair.lr)
    same = datasets.load("set5", data_dir=tmp_path)
    assert (same.fingerprint(), same.fingerprint(2)) == before
    write_image(tmp_path / "Set5" / "LRbicx2" / "baby.png", small(0, 2))
    other = datasets.load("set5", data_dir=tmp_path)
    assert other.fingerprint() == before[0]
    assert other.fingerprint(2) != before[1]


def test_subsets_and_crops_are_not_the_verified_set() -> None:
    builtin = datasets.load("builtin")
    assert not builtin.subset(3).verified
    assert not builtin.crop(64).verified


def test_a_whole_set_with_other_pixels_is_noticed(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    other = datasets.load("set5", data_dir=tmp_path)
    assert other.altered and not other.verified
    assert not other.subset(4).altered  # nothing is on record for four images
    assert not other.crop(24).altered
    assert not datasets.load("builtin").altered
    (tmp_path / "Set5" / "HR" / "woman.png").unlink()
    assert not datasets.load("set5", data_dir=tmp_path).altered


def test_builtin() -> None:
    builtin = datasets.load("builtin")
    assert builtin.names == ("astronaut", "chelsea", "china", "coffee", "flower", "motorcycle_left", "rocket")
    for index in range(len(builtin)):
        image = builtin.hr(index)
        assert min(image.shape[:2]) >= 300
        assert np.abs(image[..., 0].astype(int) - image[..., 2]).mean() > 1  # really in colour
    assert builtin.verified


@pytest.mark.parametrize("name", ["set5", "set14", "b100", "urban100", "div2k-lrx4"])
def test_sets_in_hand_are_verified(data_dir: Path, no_data: Path, name: str) -> None:
    try:
        found = datasets.load(name, data_dir=data_dir)
    except DataError as error:
        pytest.skip(str(error))
    assert found.known, "no fingerprint on record"
    if len(found) not in found.known:
        pytest.skip(f"{found.name}: fingerprints are on record for {sorted(found.known)} images only")
    assert found.verified and not found.altered


def test_true_name_of_the_partial_set(data_dir: Path) -> None:
    try:
        found = datasets.load("urban100", data_dir=data_dir)
    except DataError as error:
        pytest.skip(str(error))
    assert found.name == ("urban100" if len(found) == 100 else f"urban100[{len(found)}]")


# --- where sets are looked for ---------------------------------------------------------------------------


def test_order_of_places(tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_pixel(**options: object) -> list[int]:
        return datasets.load("set5", **options).hr(0)[0, 0].tolist()  # type: ignore[arg-type]

    for value, root in enumerate([no_data, tmp_path / "env", tmp_path / "arg"]):
        folder = root / "Set5" / "HR"
        folder.mkdir(parents=True)
        write_image(folder / "baby.png", np.full((4, 4, 3), value, np.uint8))
    assert first_pixel() == [0, 0, 0]
    monkeypatch.setenv("SQLIB_DATA", str(tmp_path / "env"))
    assert first_pixel() == [1, 1, 1]
    assert first_pixel(data_dir=tmp_path / "arg") == [2, 2, 2]
    (tmp_path / "empty").mkdir()
    assert first_pixel(data_dir=tmp_path / "empty") == [1, 1, 1]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path))
    assert datasets.cache_folder() == tmp_path
    monkeypatch.delenv("SQLIB_CACHE")
    assert datasets.cache_folder().is_absolute()
    assert "sqlib" in str(datasets.cache_folder())


@pytest.mark.parametrize(
    ("name", "folder", "count"),
    [("manga109", "Manga109", 109), ("test2k", "Test2K", 100), ("test4k", "Test4K", 100)],
)
def test_missing_set_without_address(no_data: Path, name: str, folder: str, count: int) -> None:
    with pytest.raises(DataError) as caught:
        datasets.load(name, allow_unverified=True)
    message = str(caught.value)
    assert "No verified URL is recorded" in message
    assert str(no_data / folder / "HR") in message
    assert f"{count} images" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["set5", "set14", "b100", "urban100", "div2k", "div2k-valid"])
def test_missing_set_with_an_unverified_address_is_not_fetched(
    no_data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_load, "_fetch", lambda *_: pytest.fail("must not download"))
    with pytest.raises(DataError, match=r"https://\S+ \(not verified by this project; sqlib\.datasets"):
        datasets.load(name)


def test_nothing_claims_a_verified_address() -> None:
    for known in datasets.CATALOGUE.values():
        assert not known.url_verified  # nobody has fetched one yet


@pytest.mark.parametrize("name", ["set6", "", "Set 5", 5, None])
def test_unknown_set(name: object) -> None:
    with pytest.raises(InputError, match=r"unknown dataset .*known: builtin, set5, set14"):
        datasets.load(name)  # type: ignore[arg-type]


def test_names_ignore_case(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "Set5" / "HR", SET5)
    assert datasets.load("Set5", data_dir=tmp_path).name == "set5"


def test_data_dir_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        datasets.load("set5", data_dir=tmp_path / "none")


def test_environment_folder_that_does_not_exist(
    tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLIB_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"typo \(does not exist\)"):
        datasets.load("set5")
    assert datasets.load("builtin").name == "builtin"


def test_closed_folder(tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "Set5" / "HR", SET5)

    def closed(folder: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", closed)  # real permissions do not bind root
    with pytest.raises(DataError, match=r"cannot look for 'set5' in .*Permission denied"):
        datasets.load("set5", data_dir=tmp_path)


def test_torch_is_imported_for_batches_only() -> None:
    code = (
        "import sys; from sqlib import datasets, images, metrics, resize;"
        "s = datasets.calibration(datasets.load('builtin').subset(1), n=1, patch=8);"
        "s.record(); assert 'torch' not in sys.modules; next(iter(s)); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- download, from a server on this machine ----------------------------------------------------------------


def zip_of(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "PNG")
    return buffer.getvalue()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep test output clean."""


@pytest.fixture
def serve(tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """``serve(file name, bytes)`` makes that the archive of ``set5`` and returns the empty cache folder."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(_Silent, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def publish(name: str, data: bytes | None) -> Path:
        if data is not None:
            (folder / name).write_bytes(data)
        url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        monkeypatch.setitem(
            _catalogue.CATALOGUE,
            "set5",
            replace(_catalogue.CATALOGUE["set5"], url=url, fingerprints={}),
        )
        return no_data

    yield publish
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("file", "pack"), [("set5.zip", zip_of), ("benchmark.tar", tar_of)])
def test_download_unpacks_and_is_kept(
    serve: Callable[..., Path],
    file: str,
    pack: Callable[[dict[str, bytes]], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = {f"benchmark/Set5/HR/{name}.png": png(seed) for seed, name in enumerate(SET5)}
    cache = serve(file, pack(content))
    found = datasets.load("set5", allow_unverified=True)
    assert found.name == "set5"
    assert np.array_equal(found.hr(4), picture(4))
    assert [p.name for p in cache.iterdir()] == [f"{file}.unpacked"]  # no archive, no partial folder
    monkeypatch.setattr(_load, "_fetch", lambda *_: pytest.fail("must come from the cache"))
    assert datasets.load("set5").names == SET5


def test_downloaded_pixels_are_compared_with_the_record(
    serve: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("set5.zip", zip_of({f"Set5/HR/{name}.png": png(seed) for seed, name in enumerate(SET5)}))
    entry = _catalogue.CATALOGUE["set5"]
    monkeypatch.setitem(_catalogue.CATALOGUE, "set5", replace(entry, fingerprints={5: "0" * 64}))
    with pytest.warns(UserWarning, match="differ from those on record"):
        assert not datasets.load("set5", allow_unverified=True).verified


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "404"),
        (b"<html>moved</html>", "neither a zip nor a tar"),
        (zip_of({"readme.txt": b"nothing here"}), "holds no folder Set5"),
    ],
    ids=["absent", "not an archive", "other content"],
)
def test_failed_download(serve: Callable[..., Path], data: bytes | None, message: str) -> None:
    cache = serve("set5.zip", data)
    with pytest.raises(DataError, match=message):
        datasets.load("set5", allow_unverified=True)
    assert not list(cache.glob(".partial*"))


def test_archive_cannot_write_outside(serve: Callable[..., Path], tmp_path: Path) -> None:
    serve("set5.tar", tar_of({"../../escaped.txt": b"x"}))
    with pytest.raises(DataError, match=r"fetching http://.* failed"):
        datasets.load("set5", allow_unverified=True)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_unwritable_cache(
    serve: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("set5.zip", zip_of({}))
    blocker = tmp_path / "file"
    blocker.write_text("a file where the folder should be")  # holds for root too, unlike permissions
    monkeypatch.setenv("SQLIB_CACHE", str(blocker / "cache"))
    with pytest.raises(DataError, match=r"cannot be written .*set SQLIB_CACHE to one that can"):
        datasets.load("set5", allow_unverified=True)
    assert datasets.load("builtin").name == "builtin"  # needs no cache


# --- calibration -----------------------------------------------------------------------------------------


def test_calibration_batches() -> None:
    sample = datasets.calibration("builtin", n=10, patch=24, scale=4, seed=3, batch=4)
    batches = list(sample)
    assert [tuple(b.shape) for b in batches] == [(4, 3, 24, 24), (4, 3, 24, 24), (2, 3, 24, 24)]
    assert len(sample) == 3
    assert all(b.dtype == torch.float32 for b in batches)
    assert float(torch.cat(batches).min()) >= 0
    assert float(torch.cat(batches).max()) <= 1
    again = list(sample)
    assert all(torch.equal(a, b) for a, b in zip(batches, again))
    first = sample.patches[0].transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(batches[0][0].numpy(), first)
    batches[0].zero_()  # a caller that writes into a batch must not change the next round
    assert torch.equal(next(iter(sample)), again[0])


def test_calibration_is_seeded_and_recorded() -> None:
    options = {"n": 6, "patch": 16, "scale": 4}
    a, b, c = (datasets.calibration("builtin", seed=seed, **options) for seed in (1, 1, 2))
    assert a.record() == b.record()
    assert a.record()["sha256"] != c.record()["sha256"]
    record = json.loads(json.dumps(a.record()))
    assert record["source"] == "builtin"
    assert {key: record[key] for key in ("n", "patch", "scale", "seed", "batch")} == {
        "n": 6,
        "patch": 16,
        "scale": 4,
        "seed": 1,
        "batch": 16,
    }
    assert len(record["crops"]) == 6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_are_cut_from_the_shrunken_image(scale: int) -> None:
    """Bit for bit: a crop made from its surroundings equals a crop of the whole low-resolution image."""
    builtin = datasets.load("builtin")
    sample = datasets.calibration(builtin, n=14, patch=40, scale=scale, seed=scale)
    whole = {name: downscale(builtin.hr(i), scale) for i, name in enumerate(builtin.names)}
    for patch, (name, top, left) in zip(sample.patches, sample.crops):
        assert np.array_equal(patch, whole[name][top : top + 40, left : left + 40])


def test_every_image_has_its_turn() -> None:
    sample = datasets.calibration("builtin", n=14, patch=16, scale=4)
    drawn = [name for name, _, _ in sample.crops]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == sorted(datasets.load("builtin").names)


def test_crops_reach_all_borders(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(0, 24, 24))
    sample = datasets.calibration(datasets.from_folder(tmp_path), n=60, patch=4, scale=4)
    assert {top for _, top, _ in sample.crops} == {left for _, _, left in sample.crops} == {0, 1, 2}


def test_images_that_are_too_small_are_passed_over(tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", picture(0, 20, 60))
    write_image(tmp_path / "large.png", picture(1, 60, 60))
    found = datasets.from_folder(tmp_path)
    assert {name for name, _, _ in datasets.calibration(found, n=5, patch=12, scale=4).crops} == {"large"}
    with pytest.raises(InputError, match=r"no image of folder:.* holds a crop of 16 x 16"):
        datasets.calibration(found, n=5, patch=16, scale=4)


def test_low_resolution_sets_are_used_as_they_are(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "DIV2K_LRx4", ["0901x4", "0902x4"])
    for source in ("div2k", "div2k-lrx4"):
        sample = datasets.calibration(source, n=4, patch=20, scale=4, data_dir=tmp_path)
        assert sample.record()["source"] == "div2k-lrx4[2]"
        for patch, (name, top, left) in zip(sample.patches, sample.crops):
            image = picture(int(name) - 901)
            assert np.array_equal(patch, image[top : top + 20, left : left + 20])
    with pytest.raises(DataError, match=r"no low-resolution images at x2, only at \[4\]"):
        datasets.calibration("div2k-lrx4", scale=2, data_dir=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="'div2k' not found"):
        datasets.calibration("div2k", scale=2, data_dir=empty)


def test_low_resolution_images_stand_in_for_originals_at_other_scales(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "DIV2K_LRx4", ["0901x4", "0902x4"])
    sample = datasets.calibration("div2k", n=3, patch=8, scale=2, data_dir=tmp_path)
    assert sample.record()["source"] == "div2k-lrx4:originals[2]"
    for patch, (name, top, left) in zip(sample.patches, sample.crops):
        small = downscale(picture(int(name) - 901), 2)
        assert np.array_equal(patch, small[top : top + 8, left : left + 8])
    inputs = datasets.load("div2k-lrx4", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"at x3, only at \[4\]"):
        inputs.as_originals(3)
    with pytest.raises(InputError, match="originals of its own"):
        inputs.as_originals(4).as_originals(4)


def test_originals_are_preferred(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "DIV2K_LRx4", ["0901x4"])
    put(tmp_path / "DIV2K_train_HR", ["0001"])
    sample = datasets.calibration("div2k", n=2, patch=4, scale=4, data_dir=tmp_path)
    assert sample.source == "div2k[1]"


def test_low_resolution_sets_cannot_be_scored(tmp_path: Path, no_data: Path) -> None:
    put(tmp_path / "DIV2K_LRx4", ["0901"])
    found = datasets.load("div2k-lrx4", data_dir=tmp_path)
    assert not found.has_hr
    for use in (lambda: found.hr(0), lambda: found.pair(0, 4), lambda: found.crop(8)):
        with pytest.raises(DataError, match="no high-resolution images"):
            use()


@pytest.mark.parametrize("field", ["n", "patch", "scale", "batch"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "four", True])
def test_bad_calibration_numbers(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field}={value!r}"):
        datasets.calibration("builtin", **{field: value})  # type: ignore[arg-type]


def test_bad_seed_and_source(no_data: Path) -> None:
    with pytest.raises(InputError, match="seed=-1"):
        datasets.calibration("builtin", seed=-1)
    with pytest.raises(InputError, match="unknown dataset"):
        datasets.calibration("imagenet")
    with pytest.raises(DataError, match="'div2k' not found"):
        datasets.calibration("div2k")


def test_real_calibration_images(data_dir: Path, no_data: Path) -> None:
    if not (data_dir / "train" / "DIV2K_LRx4").is_dir():
        pytest.skip(f"no DIV2K_LRx4 in {data_dir}")
    sample = datasets.calibration("div2k", n=8, scale=4, data_dir=data_dir)
    assert sample.patches.shape == (8, 48, 48, 3)
    assert sample.source == "div2k-lrx4"
