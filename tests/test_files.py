"""Nothing is overwritten that must not be, and nothing is left half written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqlib._files import check_output, write_atomically
from sqlib.errors import DataError, InputError
from sqlib.images import check_format, read_image, write_image


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_an_output(tmp_path: Path, overwrite: bool) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "soft.png").symlink_to("a.png")
    os.link(source, tmp_path / "hard.png")
    (tmp_path / "inside").symlink_to(tmp_path)
    for name in ("a.png", "folder/../a.png", "./a.png", "soft.png", "hard.png", "inside/a.png"):
        with pytest.raises(InputError, match="would overwrite the input"):
            check_output(tmp_path / name, inputs=["other.png", source], overwrite=overwrite)
    with pytest.raises(InputError, match="would overwrite the input"):
        check_output(source, inputs=[tmp_path / "soft.png"], overwrite=overwrite)
    check_output(tmp_path / "b.png", inputs=[source])


def test_an_input_in_another_spelling_of_a_relative_path(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    for one, other in (("a.png", str(tmp_path / "a.png")), (str(tmp_path / "a.png"), "./a.png")):
        with pytest.raises(InputError, match="would overwrite the input"):
            check_output(one, inputs=[other], overwrite=True)


def test_what_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "dangling.png").symlink_to("gone.png")
    for name in ("a.png", "dangling.png"):
        with pytest.raises(InputError, match=r"exists.*--force"):
            check_output(tmp_path / name)
        check_output(tmp_path / name, overwrite=True)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "locked.png").write_bytes(b"kept")
    (tmp_path / "locked.png").chmod(0o444)
    for name, words in (
        ("gone/a.png", "does not exist"),
        ("folder", "is a folder"),
        ("pipe.png", "not a regular file"),
        ("locked.png", "write-protected"),
    ):
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, overwrite=True)
    for name in ("pipe.png", "locked.png"):
        with pytest.raises(InputError):
            write_atomically(tmp_path / name, b"new")
    assert (tmp_path / "locked.png").read_bytes() == b"kept"
    with pytest.raises(DataError, match="cannot write"):
        write_atomically(tmp_path / "gone" / "a.png", b"new")
    with pytest.raises(DataError, match="cannot write"):
        write_atomically(tmp_path / "locked.png" / "a.png", b"new")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(InputError, match="symbolic links"):
        check_output(tmp_path / "round", overwrite=True)
    with pytest.raises(DataError, match="cannot write"):
        write_atomically(tmp_path / "round", b"new")
    assert names(tmp_path) == ["folder", "locked.png", "pipe.png", "round"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_write_protected_folder_is_found_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match="permissions"):
            check_output(tmp_path / "a.png")
    finally:
        tmp_path.chmod(0o755)


def test_a_link_is_followed_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"old")
    (tmp_path / "real" / "a.png").chmod(0o640)
    (tmp_path / "a.png").symlink_to("real/a.png")
    write_atomically(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").is_symlink() and (tmp_path / "real" / "a.png").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real" / "a.png").stat().st_mode) == 0o640
    (tmp_path / "b.png").symlink_to("real/b.png")
    write_atomically(tmp_path / "b.png", b"new")
    assert (tmp_path / "b.png").is_symlink() and names(tmp_path / "real") == ["a.png", "b.png"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.png", b"new")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_nothing_stays_behind_a_failure(tmp_path: Path, monkeypatch, error) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / ".a.png.partial").write_bytes(b"somebody's")

    def fails(self, target):
        assert len(names(tmp_path)) == 3  # it is written beside its place
        raise error

    monkeypatch.setattr(Path, "replace", fails)
    expected = DataError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert names(tmp_path) == [".a.png.partial", "a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


KILLED = """
import os, sys
from sqlib._files import write_atomically
write_atomically(sys.argv[1], (os.kill(os.getpid(), 9) for _ in range(1)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and flock are POSIX")
def test_what_a_killed_writer_left_goes_with_the_next_write_to_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert len(names(tmp_path)) == 2
    write_atomically(tmp_path / "a", b"1")
    assert len(names(tmp_path)) == 2 and (tmp_path / "a").read_bytes() == b"1"  # b's is still there
    write_atomically(tmp_path / "b", b"2")
    assert names(tmp_path) == ["a", "b"]


def test_a_writer_that_lives_loses_nothing_to_another(tmp_path: Path) -> None:
    def pieces():
        yield b"slow "
        write_atomically(tmp_path / "a", b"quick")
        assert (tmp_path / "a").read_bytes() == b"quick"
        yield b"and steady"

    write_atomically(tmp_path / "a", pieces())
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"slow and steady"


def test_the_longest_name_there_is(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".png")
    write_image(path, np.full((2, 2, 3), 7, np.uint8))
    assert read_image(path).tolist() == [[[7] * 3] * 2] * 2


def test_formats_are_known_before_the_image_is() -> None:
    assert check_format("A.PNG", (10**6, 10**6)) == "PNG"
    assert check_format("a.jpeg", (65500, 1)) == "JPEG"
    for name, size, words in (
        ("a.tif", None, "extension '.tif', expected one of .png"),
        ("a", (1, 1), "extension ''"),
        (".png", (1, 1), "extension ''"),
        ("a.webp", (1, 16384), "cannot encode 16384 x 1 pixels as .webp"),
        ("a.jpg", (65501, 1), "cannot encode 1 x 65501 pixels as .jpg"),
    ):
        with pytest.raises(InputError, match=words):
            check_format(name, size)


def test_the_limits_are_those_of_the_formats(tmp_path: Path) -> None:
    for suffix, side in ((".webp", 16383), (".jpg", 65500)):
        write_image(tmp_path / f"a{suffix}", np.zeros((1, side, 3), np.uint8))
        assert read_image(tmp_path / f"a{suffix}").shape == (1, side, 3)
