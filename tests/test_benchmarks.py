"""The table of `make bench`: rows from made benchmarks. No performance is tested here."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    return load("_measure", "_measure.py")


@pytest.fixture(scope="module")
def bench(measuring: ModuleType) -> ModuleType:
    return load("bench_main", "__main__.py")


HEAD = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); from _measure import Row, compare, report\n"
SECONDS = "{'slow': [9.0, 2.0, 2.0], 'ours': [0.1, 0.05, 0.05]}"
MADE = {
    "fast": f"compare('fast', '4 bit', {SECONDS}, 'slow', 'ours', 20)",
    "missed": f"compare('missed', '8 bit', {SECONDS}, 'slow', 'ours', 100)",
    "free": f"compare('free', 'any', {SECONDS}, 'slow', 'ours')",
    "lacking": "report(Row('lacking', 'photos', note='not run: needs photos'))",
    "silent": "print('only text')",
    "broken": "report(Row('broken', 'first', 'b', 'o', 3.0, 2.0)); raise ValueError('no such thing')",
    "wrong": "sys.exit('4 bit: answers differ')",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MADE.items():
        (tmp_path / f"{name}.py").write_text(HEAD + text)
    (tmp_path / "_shared.py").write_text("raise SystemExit('not a benchmark')")
    return tmp_path


def printed(text: str) -> dict[str, list[str]]:
    """Lines of the table after its head, by their first word."""
    lines = text[text.index("benchmark  ") :].splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[1 : lines.index("")]:
        found.setdefault(line.split()[0], []).append(line)
    return found


def test_every_benchmark_runs_to_its_end_and_is_in_one_table(bench, folder, capfd):
    assert bench.main([], folder) == 1
    captured = capfd.readouterr()
    rows = printed(captured.out)
    assert list(rows) == sorted(MADE)
    assert rows["fast"][0].split() == ["fast", "4", "bit", "slow", "ours", "40.0", "20.0", "reached"]
    assert rows["missed"][0].endswith(" 40.0   100  below its aim")
    assert rows["free"][0].split() == ["free", "any", "slow", "ours", "40.0"]
    assert rows["lacking"][0].endswith("not run: needs photos")
    assert rows["silent"][0].endswith("compares nothing with an aim, see its own output")
    assert rows["broken"][0].endswith("reached")
    assert rows["broken"][1].endswith("crashed: ValueError: no such thing")
    assert rows["wrong"][0].endswith("crashed: 4 bit: answers differ")
    assert rows["killed"][0].endswith("killed by signal 9")
    assert "2 of 3 aims reached" in captured.out and "Traceback" in captured.err
    assert "fast" in captured.out.split("benchmark  ")[0]  # each one's own output goes by as it comes


def test_a_missed_aim_alone_fails_nothing(bench, folder, capfd):
    assert bench.main(["--only", "missed", "fast", "lacking", "silent"], folder) == 0
    out = capfd.readouterr().out
    assert list(printed(out)) == ["missed", "fast", "lacking", "silent"] and "1 of 2 aims reached" in out


def test_table_is_stated_with_the_machine(bench, measuring, folder, capfd):
    import torch

    assert bench.main(["--only", "fast"], folder) == 0
    out = capfd.readouterr().out
    assert measuring.machine() in out
    assert f"torch {torch.__version__.split('+')[0]}" in out and " cores; " in out and " threads" in out


def test_quick_is_said_and_reaches_the_benchmarks(bench, tmp_path, capfd):
    (tmp_path / "one.py").write_text(
        HEAD + "from _measure import QUICK, measure\n"
        "n = len(measure({'a': lambda: 0}, repeats=50)['a'])\n"
        "report(Row('one', f'{QUICK} {n}'))"
    )
    assert bench.main(["--quick"], tmp_path) == 0
    assert "True 2" in (out := capfd.readouterr().out) and "ratios mean nothing" in out
    assert bench.main([], tmp_path) == 0
    assert "False 50" in (out := capfd.readouterr().out) and "mean nothing" not in out


def test_contenders_take_turns_and_ratios_are_of_medians(measuring, capsys):
    calls: list[str] = []
    seconds = measuring.measure(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1
    )
    assert calls == ["a", "b", *["a", "b"] * 3] and [len(v) for v in seconds.values()] == [3, 3]
    measuring.compare("x", "case", {"base": [1.0, 6.0, 50.0], "ours": [2.0, 3.0, 0.1]}, "base", "ours", 4.0)
    assert capsys.readouterr().out == "case, ours: 3.00 times base, aim 4.00: below its aim\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(40.0, "40.0"), (0.7692, "0.769"), (2796.4, "2,796"), (1.0, "1.00"), (0.0, "0"), (-1.5, "-1.5")],
)
def test_numbers_have_three_digits_that_count(measuring, value, text):
    assert measuring._number(value) == text
    assert measuring._number(math.inf) == "inf"


def test_an_aim_is_reached_when_the_ratio_is_at_least_it(measuring):
    rows = [measuring.Row("b", "c", ratio=ratio, aim=2.0) for ratio in (1.99, 2.0, math.inf, math.nan)]
    assert [row.verdict for row in rows] == ["below its aim", "reached", "reached", "below its aim"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_each_file_runs_alone(path):
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--help" in done.stdout, done.stderr
