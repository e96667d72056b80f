"""What is printed: on any console, onto a full disk, into a pipe that nobody reads."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sqlib import models
from sqlib.cli import main
from sqlib.images import read_image

NAME = "Größe € 大.png"
CONSOLES = [
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
]


def command(*args: object, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sqlib", *map(str, args)],
        env={**os.environ, **(env or {})},
        encoding="utf-8",
        errors="replace",
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.parametrize("console", CONSOLES, ids=str)
def test_any_name_on_any_console(picture: Path, console: dict[str, str]) -> None:
    out = picture.with_name(NAME)
    done = command("upscale", picture, out, "--scale", 4, env=console, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"128 x 96 from 32 x 24 by {models.best(4)}\n")
    assert read_image(out).shape == (96, 128, 3)


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("upscale", "--help"),
        ("status",),
        ("status", "--json"),
        ("plan", "--cost"),
        ("plan", "dfsq-table2", "--json"),
        ("cost", "srresnet", "--scale", "4", "--image", "64x64"),
        ("evaluate", "Größe", "--scale", "4", "--dataset", "大"),
        ("upscale", NAME, "x.png", "--scale", "4"),
        ("upscale", "x.png", NAME + "/x.png", "--scale", "4"),
        ("verify", "--sample", "1", "--store", NAME),
        ("run-notebooks", "out", "--notebooks", NAME),
        ("Größe",),
    ],
    ids=ascii,
)
def test_every_command_on_an_ascii_console(args, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path / NAME))
    monkeypatch.chdir(tmp_path)
    printed = {}
    for encoding in ("ascii", "utf-8"):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        status = main(args)
        for stream in streams:
            stream.flush()
        printed[encoding] = status, *(stream.buffer.getvalue().decode(encoding) for stream in streams)
    monkeypatch.undo()
    status, out, error = printed["ascii"]
    assert status == printed["utf-8"][0] and "internal error" not in error
    for text, plain in zip((out, error), printed["utf-8"][1:]):
        assert text == plain.encode("ascii", "backslashreplace").decode()
    if "--json" in args:
        json.loads(out)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_failure_with_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = command("cost", "rdn", "--scale", 4, "--image", "64x64", stdout=full)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_a_pipe_that_nobody_reads_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = command("cost", "rdn", "--scale", 4, "--image", "64x64", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_no_standard_output_at_all() -> None:
    line = f"{sys.executable} -m sqlib cost rdn --scale 4 --image 64x64 >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_main_leaves_warnings_as_they_were() -> None:
    before = warnings.showwarning, list(warnings.filters)
    assert main(["plan", "dfsq-table2"]) == 0
    assert (warnings.showwarning, list(warnings.filters)) == before
