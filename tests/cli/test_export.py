"""``sqlib export``: integers for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqlib.cli import main

onnx = pytest.importorskip("onnx")

COMMAND = ("export", "edsr-small", "--scale", "4")
RECIPE = ("--recipe", "minmax", "--bits", "4,8", "--int4")


def test_a_file_and_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "q.onnx"
    assert main([*COMMAND, *RECIPE, str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantized_sites"] == found["integer_sites"] == 16
    assert found["bytes"] == path.stat().st_size
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_a_network_that_was_quantized_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, path = tmp_path / "q.safetensors", tmp_path / "q.onnx"
    assert main(["quantize", "edsr-small", "--scale", "4", "--recipe", "minmax", str(saved)]) == 0
    assert main([*COMMAND, "--quantized", str(saved), "--float-outputs", str(path)]) == 0
    assert "minmax 8 bit, 16 of 16 quantized call sites in integers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("q.onnx",), 2, "give --recipe, or --quantized"),
        ((*RECIPE, "q.pb"), 2, "end it in .onnx"),
        ((*RECIPE, "there.onnx"), 2, "exists.*--force"),
        (("--recipe", "dfsq", "--bits", "4", "q.onnx"), 1, "no grid of 8 bits.*such as minmax"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    Path("there.onnx").touch()
    assert main([*COMMAND, *arguments]) == status
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
