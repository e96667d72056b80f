"""Networks whose recipe learns: made once, shared by cells and processes, resumed after a kill, mended."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sqlib
from sqlib import datasets, models, recipes
from sqlib.errors import StoreError
from sqlib.experiments import plan
from sqlib.experiments.run.artifacts import Artifacts
from sqlib.experiments.run.compute import Workbench
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.cells import CalibrationSpec, distinct
from sqlib.experiments.store.working import Store
from sqlib.fit.loop import checkpoint

KEY = "ab" * 32
SCRIPT = """
import sys
from pathlib import Path
import sqlib
sys.path.insert(0, sys.argv[1])
from test_artifacts import KEY, counted, learner, making, parts
sqlib.quantize_model = counted(Path(sys.argv[2]) / "log")
from sqlib.experiments.run.artifacts import Artifacts
network, crops = parts()
make = making(network, learner(int(sys.argv[3])), crops)
Artifacts(Path(sys.argv[2]) / "artifacts").fitted(KEY, network, make)
"""


def learner(iterations=3, bits=4):
    return recipes.TwoDQuant(bits=bits, schedule="laptop", iterations=iterations, batch=1)


def parts():
    """A network, and crops to calibrate it on."""
    network = models.pretrained("edsr-small", scale=4)
    return network, datasets.calibration("builtin", n=2, patch=12, scale=4, batch=2)


def making(network, recipe, crops):
    """What makes the network of an artifact."""
    return lambda folder: sqlib.quantize_model(network, recipe, crops, resume=folder)


def counted(log: Path):
    """`sqlib.quantize_model`, with a line in ``log`` for each start."""
    made = sqlib.quantize_model

    def quantize_model(*args, **options):
        with log.open("a") as stream:
            stream.write("made\n")
        return made(*args, **options)

    return quantize_model


def starts(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def log(tmp_path, monkeypatch):
    """How often a network was made in this process."""
    monkeypatch.setattr(sqlib, "quantize_model", counted(tmp_path / "log"))
    return tmp_path / "log"


def start(folder: Path, iterations: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(iterations)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def same(first, second) -> bool:
    x = torch.rand(1, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    states = first.state_dict(), second.state_dict()
    return (
        torch.equal(first(x), second(x))
        and states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    )


def test_made_once_and_loaded_bit_for_bit(tmp_path, log):
    network, crops = parts()
    artifacts = Artifacts(tmp_path / "artifacts")
    made = artifacts.fitted(KEY, network, making(network, learner(), crops))
    again = Artifacts(tmp_path / "artifacts").fitted(KEY, network, making(network, learner(), crops))
    assert starts(log) == 1 and made is not again and same(made, again)
    assert artifacts.file(KEY).is_file() and not (artifacts.path / ".unfinished" / KEY).exists()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])],
    ids=["truncated", "empty", "one bit"],
)
def test_a_damaged_file_is_set_aside_and_made_again(tmp_path, log, damage):
    network, crops = parts()
    artifacts = Artifacts(tmp_path / "artifacts")
    made = artifacts.fitted(KEY, network, making(network, learner(), crops))
    file = artifacts.file(KEY)
    good = file.read_bytes()
    file.write_bytes(damage(good))
    with pytest.warns(UserWarning, match=r"moved to .*\.damaged.*made again"):
        again = artifacts.fitted(KEY, network, making(network, learner(), crops))
    assert starts(log) == 2 and same(made, again) and file.read_bytes() == good
    assert [path.read_bytes() for path in (artifacts.path / ".damaged").iterdir()] == [damage(good)]


def test_two_processes_make_one(tmp_path):
    runners = [start(tmp_path, 3) for _ in range(2)]
    assert [runner.wait(timeout=180) for runner in runners] == [0, 0]
    assert starts(tmp_path / "log") == 1


def test_a_killed_training_goes_on_where_it_was(tmp_path, monkeypatch):
    iterations = 260
    folder = tmp_path / "artifacts" / ".unfinished" / KEY
    runner = start(tmp_path, iterations)
    try:
        wait_until(lambda: any(checkpoint.read(p)["step"] >= 100 for p in folder.glob("*.pt")))
        os.kill(runner.pid, signal.SIGKILL)
    finally:
        runner.wait()
    network, crops = parts()
    artifacts = Artifacts(tmp_path / "artifacts")
    assert not artifacts.file(KEY).exists()
    steps, step = [], torch.optim.Adam.step

    def count(self, *args, **options):
        steps.append(1)
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", count)
    resumed = artifacts.fitted(KEY, network, making(network, learner(iterations), crops))
    assert 0 < len(steps) <= iterations - 100  # it saves every hundred
    assert same(resumed, sqlib.quantize_model(network, learner(iterations), crops))
    assert artifacts.file(KEY).is_file() and not folder.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "artifacts").write_text("a file")
    network, crops = parts()
    with pytest.raises(StoreError, match=r"artifacts.* cannot be written"):
        Artifacts(tmp_path / "artifacts").fitted(KEY, network, making(network, learner(), crops))


@pytest.fixture
def cells():
    """Three small cells of one learning recipe and one of a recipe that does not learn."""
    base = next(c for c in plan("dfsq-table2", "smoke") if c.place.method == "MinMax")
    base = replace(
        base, dataset="builtin[:1]@96", calibration=CalibrationSpec("builtin", n=2, patch=12, batch=2)
    )
    learns = replace(base, recipe=distinct(learner()))
    return [learns, replace(learns, dataset="builtin[:2]@96"), replace(learns, bits="8"), base]


def test_cells_of_one_network_share_it_and_score_alike_without(cells, tmp_path, log):
    first, second = Store(tmp_path / "one"), Store(tmp_path / "two")
    # a bench for each cell, as in processes of their own
    for cell in cells:
        assert run([cell], first, Workbench(artifacts=first.artifacts), profile="laptop").done == 1
    assert starts(log) == 3  # two settings of bits that learn, and Min-Max
    assert len(list(first.artifacts.rglob("*.safetensors"))) == 2
    assert run(cells, second, Workbench(), profile="laptop").done == 4 and not second.artifacts.exists()
    images = [[record["images"] for record in store.records()] for store in (first, second)]
    assert first.keys() == second.keys() and images[0] == images[1]


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_that_learn_say_so(name):
    kind = type(recipes.create(name))
    assert kind.learns == (kind.paired or name in ("brecq", "qdrop", "twodquant", "dbdc-pac"))


def test_a_bench_on_a_machine_without_the_store_keeps_networks_in_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    for store, expected in (("store", tmp_path / "store"), ("absent", tmp_path / "own")):
        bench = pickle.loads(pickle.dumps(Workbench(data_dir="data", artifacts=Path(store) / "artifacts")))
        assert bench.artifacts.path == expected / "artifacts"
        assert bench.data_dir == str(tmp_path / "data")
