"""A burst on a machine with torch and NumPy alone: unpack, resume, train, evaluate, write back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sqlib.training import CropPool, TrainConfig, checkpoint, train, write_pack

# Everything outside the standard library, torch and NumPy is made absent.
CHILD = """
import sys
import torch, numpy
import torch._dynamo  # looks for pandas and others by itself

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"scipy", "PIL", "safetensors", "numba", "pandas", "skimage", "sklearn",
                                      "matplotlib", "tqdm", "pooch", "joblib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from sqlib.training import TrainConfig
from sqlib.training.config import CONFIGS
CONFIGS["edsr-small-x2"] = TrainConfig("edsr-small", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)
from sqlib.training import burst
sys.exit(burst.main(sys.argv[1:]))
"""


def burst(tmp_path: Path, *plan: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--pack", f"x2={tmp_path / 'x2.pack'}", "--resume", str(tmp_path / "weights")]
    arguments += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--device", "cpu", *plan]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=300
    )


def test_a_burst_needs_torch_and_numpy_only_and_continues_at_home(
    tmp_path: Path, pool: CropPool, tiny: TrainConfig
) -> None:
    write_pack(tmp_path / "x2.pack", pool, held_out=1, side=24)
    (tmp_path / "weights").mkdir()
    done = burst(tmp_path, "edsr-small-x2=0.0001")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "edsr-small-x2.burst.json").read_text())
    assert report["complete"] is False and report["step"] == 0
    assert report["curve"] == [] and report["psnr"] > 0, "scored although no validation fell into the burst"
    assert all(size < checkpoint.LIMIT for size in report["files"].values())
    # What came back goes along next time; here the exact checkpoint of the work folder is gone.
    for path in (tmp_path / "work" / "edsr-small-x2").iterdir():
        path.unlink()
    (tmp_path / "out" / "edsr-small-x2.pt").rename(tmp_path / "weights" / "edsr-small-x2.pt")
    done = burst(tmp_path, "edsr-small-x2=5")
    assert done.returncode == 0, done.stderr
    assert "continuing at step 0" in done.stdout and "safetensors is absent here" in done.stdout
    report = json.loads((tmp_path / "out" / "edsr-small-x2.burst.json").read_text())
    assert report["complete"] is True and report["curve"][-1]["psnr"] == report["psnr"]
    # At home, where safetensors is installed, the same state becomes weights and a card.
    from sqlib.training import read_pack

    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "out" / "edsr-small-x2.pt").rename(home / "edsr-small-x2.pt")
    packed = read_pack(tmp_path / "x2.pack", scale=2, smallest=16)
    assert train(tiny, packed, home, log=lambda _line: None)
    card = json.loads((home / "edsr-small-x2.json").read_text())
    assert card["bursts"][-1]["to_step"] == tiny.steps


def test_a_bad_plan_is_refused_before_anything_runs(tmp_path: Path, pool: CropPool) -> None:
    write_pack(tmp_path / "x2.pack", pool, held_out=1, side=24)
    for plan, message in (
        ("edsr-small-x2", "expected CONFIG=MINUTES"),
        ("nothing-x2=1", "unknown training configuration"),
        ("edsr-small-x4=1", "needs a pack for x4"),
        ("edsr-small-x2=soon", "could not convert"),
    ):
        done = burst(tmp_path, plan)
        assert done.returncode == 2 and message in done.stderr, (plan, done.stderr)
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_part_that_fails_does_not_lose_the_others(tmp_path: Path, pool: CropPool) -> None:
    write_pack(tmp_path / "x2.pack", pool, held_out=1, side=24)
    (tmp_path / "work" / "edsr-small-x2").mkdir(parents=True)
    (tmp_path / "work" / "edsr-small-x2" / "checkpoint.pt").write_bytes(b"broken")
    done = burst(tmp_path, "edsr-small-x2=1")
    assert done.returncode == 1 and "cannot be read as a checkpoint" in done.stderr
