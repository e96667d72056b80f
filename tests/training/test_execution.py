"""Device, precision, compilation: what they promise, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sqlib.errors import InputError
from sqlib.fit.loop import Loop, checkpoint, execution
from sqlib.training import CropPool, Execution, TrainConfig, train
from sqlib.training.task import Training


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", "bf16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bf16"),
        ("Features\t: fp asimd i8mm bf16\n", "bf16"),
        ("flags\t\t: fpu avx2 avx512f\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_the_precision_asks_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, precision: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}")
    monkeypatch.setattr(execution, "CPUINFO", tmp_path / "cpuinfo")
    assert Execution("cpu").precision == precision
    assert Execution("cpu", "fp32").precision == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_the_precision_asks_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert Execution("cuda:0").precision == precision
    assert Execution("cuda", "bf16").precision == "bf16"


def test_bf16_trains_close_to_fp32_and_is_recorded(tmp_path: Path, pool: CropPool, tiny: TrainConfig) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        execution = Execution("cpu", precision)
        assert train(tiny, pool, tmp_path / precision, execution=execution, log=lambda _line: None)
        state = checkpoint.read(tmp_path / precision / checkpoint.FILE)["task"]
        (burst,) = state["bursts"]
        assert (burst["precision"], burst["from_step"], burst["to_step"]) == (precision, 0, tiny.steps)
        assert burst["images_per_second"] > 0 and burst["device"]
        losses[precision] = state["curve"][-1]["l1"]
        assert all(v.dtype == torch.float32 for v in state["model"].values())
    assert losses["fp32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_compiled_runs_the_compiled_network(
    pool: CropPool, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake_compile(model: torch.nn.Module, mode: str) -> torch.nn.Module:
        calls.append(mode)
        return torch.nn.Sequential(model)

    monkeypatch.setattr(torch, "compile", fake_compile)
    run = Training(tiny, Execution("cpu", compiled=True), pool, pool)
    before = run.model.head.weight.detach().clone()
    Loop(run).advance()
    assert calls == ["default"] and not torch.equal(before, run.model.head.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "expected cpu, cuda or cuda:N"),
        ({"device": "mps"}, "expected cpu, cuda or cuda:N"),
        ({"precision": "fp16"}, "expected one of auto, fp32, bf16"),
    ],
)
def test_bad_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Execution(**options)
