"""The command line: statuses, one-line messages, one JSON object, and a help that answers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sqlib import experiments
from sqlib.cli import COMMANDS, main
from sqlib.images import read_image, write_image


def command(*args: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sqlib", *args], capture_output=True, text=True, **options)


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    """Nobody's real store is read or written."""
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path / "user store"))


def fails(capsys, status: int, *args: str) -> str:
    """Run ``main``; exactly one line on standard error, none on standard output."""
    assert main(args) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from sqlib.cli import main; status = main(['--help']); "
        "heavy = {'torch', 'numpy', 'pandas', 'numba', 'scipy', 'matplotlib'} & set(sys.modules); "
        "sys.exit(status or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name.replace("_", "-") in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name.replace("_", "-"), "--help"]) == 0
    assert "usage: sqlib" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sqlib ")


EVALUATE = ("evaluate", "edsr-small", "--scale", "4", "--dataset", "builtin")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "COMMAND"),
        (("nothing",), "invalid choice"),
        (("evaluate", "edsr", "--scale", "4", "--dataset", "set5"), "unknown network 'edsr'"),
        (("evaluate", "edsr-small", "--scale", "4", "--dataset", "set6"), "unknown dataset 'set6'"),
        (("evaluate", "edsr-small", "--dataset", "set5"), "--scale"),
        (
            ("evaluate", "edsr-small", "--scale", "0", "--dataset", "set5"),
            "'0' is not an integer of 1 or more",
        ),
        (("evaluate", "edsr-small", "--scale", "four", "--dataset", "set5"), "'four'"),
        ((*EVALUATE, "--recipe", "maxmin", "--bits", "4"), "unknown recipe 'maxmin'; expected one of"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "0"), "'0' is not 2 to 8"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "1"), "'1' is not 2 to 8"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "33"), "'33' is not 2 to 8"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "four"), "'four' is not 2 to 8"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "32"), "quantizes nothing"),
        ((*EVALUATE, "--recipe", "minmax", "--bits", "8,4,2"), "'8,4,2' is not"),
        ((*EVALUATE, "--recipe", "minmax", "--calibration", "x"), "unknown calibration set 'x'"),
        ((*EVALUATE, "--bits", "4"), "--bits needs --recipe"),
        ((*EVALUATE, "--calibration", "set14"), "--calibration needs --recipe"),
        ((*EVALUATE, "--seed", "5"), "--seed needs --recipe"),
        ((*EVALUATE, "--recipe", "MinMax", "--pairs", "t91"), "--pairs: minmax does not train on pairs"),
        ((*EVALUATE, "--weights", "w.pth", "--allow-unverified"), "--allow-unverified with --weights"),
        ((*EVALUATE, "--protocol", "mine"), "unknown protocol 'mine'"),
        ((*EVALUATE, "--device", "warp"), "device 'warp' cannot be used"),
        (("upscale", "a.png", "nowhere/b.png", "--scale", "4"), "folder of 'nowhere/b.png'"),
        (
            ("reproduce", "dfsq-table9"),
            "unknown table 'dfsq-table9'; expected one of dfsq-table1, dfsq-table2",
        ),
        (("reproduce", "dfsq-table2", "--profile", "desk"), "unknown profile 'desk'"),
        (("reproduce", "dfsq-table2", "--shard", "3/2"), "shard is '3/2'"),
        (("reproduce", "dfsq-table2", "--jobs", "0"), "'0' is not an integer"),
        (("plan", "dfsq-table9"), "unknown table"),
        (("plan", "--profile", "desk"), "unknown profile"),
        (("status", "dfsq-table9"), "unknown table"),
        (("status", "--profile", "smoke"), "unknown profile 'smoke'"),
        (("verify",), "--sample"),
        (("verify", "--sample", "0"), "'0' is not"),
        (("verify", "--sample", "1", "--max-seconds", "nan"), "'nan' is not a positive number"),
        (("train", "edsr-small-x4", "--data", "x", "--minutes", "abc"), "'abc' is not a positive number"),
        (("run-notebooks", "out", "-p", "profile", "full"), "parameter profile is given 2 times"),
        (("run-notebooks", "out", "-p", "seed", "1", "-p", "seed", "2"), "parameter seed is given 2 times"),
        (("verify", "--sample", "1", "--store", "nowhere"), "'nowhere' does not exist"),
    ],
)
def test_usage_errors(args, words, capsys):
    assert words in fails(capsys, 2, *args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("evaluate", "edsr-small", "--scale", "7", "--dataset", "builtin"), "scale 7"),
        (("evaluate", "rdn", "--scale", "4", "--dataset", "builtin"), "no weights ship for rdn x4"),
        ((*EVALUATE, "--weights", "nowhere.pth"), "nowhere.pth"),
        ((*EVALUATE, "--first", "1000"), "1000"),
        (("upscale", "nowhere.png", "b.png", "--scale", "4"), "nowhere.png"),
    ],
)
def test_failures(args, words, capsys):
    assert words in fails(capsys, 1, *args)


def test_missing_dataset_says_where_to_put_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SQLIB_DATA", str(tmp_path))
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path / "cache"))
    error = fails(capsys, 1, "evaluate", "edsr-small", "--scale", "4", "--dataset", "manga109")
    assert "manga109" in error and str(tmp_path) in error


def test_evaluate_prints_one_json_object():
    done = command(*EVALUATE, "--first", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n"] == len(result["images"]) == 1
    assert result["dataset"] == "builtin[1]" and result["protocol"] == "Y-BT601/crop=scale/uint8"
    assert result["images"][0]["psnr"] == result["psnr"] > 20 and 0 < result["ssim"] < 1
    assert result["recipe"] is None and result["bits"] is None


def test_upscale_writes_an_image(tmp_path, capsys):
    photo = read_image(_photo())[:40, :56]
    write_image(tmp_path / "in.png", photo)
    args = ["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--scale", "4"]
    assert main([*args, "--recipe", "minmax", "--bits", "8,6"]) == 0
    assert "224 x 160 from 56 x 40" in capsys.readouterr().out
    result = read_image(tmp_path / "out.png")
    assert result.shape == (160, 224, 3)
    small = result.reshape(40, 4, 56, 4, 3).mean((1, 3))
    assert np.abs(small - photo).mean() < 6  # shrunk again it is the photo


def _photo() -> Path:
    from sqlib import datasets

    path = datasets.load("builtin").items[0].hr
    assert path is not None
    return path


def test_upscale_of_a_damaged_image(tmp_path, capsys):
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nothing")
    error = fails(capsys, 1, "upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--scale", "4")
    assert "in.png" in error and not (tmp_path / "out.png").exists()


def test_plan_lists_cells_and_cost(capsys):
    assert main(["plan", "dfsq-table2", "--profile", "laptop"]) == 0
    cells = len(experiments.plan("dfsq-table2", "laptop"))
    assert len(capsys.readouterr().out.splitlines()) == cells
    assert main(["plan", "--profile", "laptop", "--cost", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dfsq-table2"]["cells"] == cells


def test_status_counts_all_printed_values(capsys):
    assert main(["status", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["scoreboard"]["total"]["values"] == 1966
    cells = len(experiments.plan("dfsq-table2", "laptop"))
    table = next(t for t in state["tables"] if t["table"] == "dfsq-table2")
    assert table["own"] == 0 and table["packaged"] + len(table["missing"]) == table["cells"] == cells
    assert main(["status", "dfsq-table2"]) == 0
    assert f"dfsq-table2 (laptop): {cells} cells, 0 in your store" in capsys.readouterr().out


def test_reproduce_and_verify_a_kept_smoke_store(tmp_path, capsys):
    store = str(tmp_path / "store")
    args = ["reproduce", "dfsq-table2", "--profile", "smoke", "--store", store, "--shard", "1/5"]
    assert main([*args, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in result["cells"]] == ["computed"] and result["store"] == store
    assert main(args) == 0
    assert "1 cells: 0 computed, 1 already there" in capsys.readouterr().out
    assert main(["verify", "--sample", "3", "--store", store]) == 0
    assert capsys.readouterr().out == "verified 1 of 1\n"


def test_a_table_without_cells_in_a_profile_says_where_it_has_some(capsys):
    assert main(["reproduce", "dfsq-table3", "--profile", "smoke"]) == 1
    assert "plans nothing in profile 'smoke'; try --profile full" in capsys.readouterr().err


def test_verify_fails_when_there_is_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["verify", "--sample", "3", "--store", str(tmp_path / "empty")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "verified 0 of 0\n" and "no records" in captured.err


def test_reproduce_fails_when_no_cell_can_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SQLIB_WEIGHTS", str(tmp_path))
    cells = len(experiments.plan("dfsq-table2", "laptop"))
    assert main(["reproduce", "dfsq-table2", "--shard", f"1/{cells}"]) == 1  # one cell, of carn-m
    captured = capsys.readouterr()
    assert "1 not run" in captured.out and "no cell could be run: needs weights carn_m.pth" in captured.err


def test_unwritable_store(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    args = ("reproduce", "dfsq-table2", "--profile", "smoke", "--store", str(tmp_path / "file" / "store"))
    assert "cannot be written" in fails(capsys, 1, *args)


def notebook(path: Path, source: str) -> None:
    cells = [new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]}), new_code_cell(source)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def test_run_notebooks_executes_all_and_names_the_failing(tmp_path, capsys):
    notebook(tmp_path / "01-good.ipynb", "assert profile == 'laptop'")
    notebook(tmp_path / "02-bad.ipynb", "1 / 0")
    args = ["run-notebooks", str(tmp_path / "out"), "--notebooks", str(tmp_path), "--profile", "laptop"]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert error.endswith("error: 1 of 2 notebooks failed: 02-bad.ipynb\n") and "ZeroDivisionError" in error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["01-good.ipynb", "02-bad.ipynb"]
    assert main([*args, "--only", "01-good"]) == 0


@pytest.mark.parametrize(
    ("extra", "status", "words"),
    [
        (("-p", "sede", "3"), 2, "unknown parameter sede for notebook 01.ipynb; expected profile"),
        (("--only", "02"), 1, "unknown notebook 02; expected one of 01"),
        (("--profile", "desk"), 2, "unknown profile 'desk'"),
    ],
)
def test_run_notebooks_bad_arguments(tmp_path, capsys, extra, status, words):
    notebook(tmp_path / "01.ipynb", "1")
    args = ("run-notebooks", str(tmp_path / "out"), "--notebooks", str(tmp_path), *extra)
    assert words in fails(capsys, status, *args)
    assert not (tmp_path / "out").exists()


def test_interrupt_and_internal_errors_are_one_line(monkeypatch, capsys):
    from sqlib.cli import status

    for error, words in (
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("a\nb"), "internal error: RuntimeError: a b"),
    ):

        def broken(args, error=error):
            raise error

        monkeypatch.setattr(status, "run", broken)
        assert words in fails(capsys, 1, "status")


def test_closed_pipe_is_quiet():
    code = f"{sys.executable} -m sqlib plan --profile laptop | head -1"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr
