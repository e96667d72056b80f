"""``python -m sqlib cost``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sqlib.cli import main

URBAN = ("cost", "srresnet", "--scale", "4", "--image", "1280x720", "--patch", "72", "--overlap", "6")


def test_one_json_object_with_refqsrs_figures():
    done = subprocess.run(
        [sys.executable, "-m", "sqlib", *URBAN, "--bits", "8", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert round(result["bitops_g"], 2) == 9.27 and result["fqr"] == 8 and result["patches"] == 8
    assert result["params"] == 1_546_771
    assert result["packed_bytes"] < result["peak_bytes"]


def test_text(capsys):
    assert main(URBAN) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "srresnet x4, output 1280 x 720, in 8 patches, 6 pixels shared, bits: 32"
    assert lines[1].split()[:3] == ["BitOPs", "148.32", "G"] and lines[2].split()[:2] == ["FQR", "32.00"]
    assert main(("cost", "edsr-small", "--scale", "2", "--image", "64x32", "--bits", "8,4")) == 0
    out = capsys.readouterr().out
    assert "in one piece, bits: weights 8, activations 4" in out and "4.00" in out


@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        (("cost", "srresnet9", *URBAN[2:]), 2, "unknown network 'srresnet9'; expected one of"),
        ((*URBAN, "--image", "1280"), 2, "'1280' is not of the form WxH"),
        ((*URBAN, "--image", "0x720"), 2, "'0x720' is not of the form WxH"),
        ((*URBAN, "--image", "1281x720"), 1, "does not divide by the scale 4; 1280x720 does"),
        ((*URBAN, "--patch", "181"), 1, "larger than the low-resolution image of 320x180"),
        ((*URBAN, "--patch", "0"), 2, "'0' is not an integer of 1 or more"),
        ((*URBAN, "--overlap", "72"), 1, "less than the patch"),
        ((*URBAN, "--overlap", "-1"), 2, "'-1'"),
        ((*URBAN, "--bits", "0"), 2, "bits=0"),
        ((*URBAN, "--bits", "33"), 2, "bits=33"),
        ((*URBAN, "--bits", "four"), 2, "'four' is not a number"),
        ((*URBAN, "--bits", "8,4,2"), 2, "'8,4,2'"),
        ((*URBAN, "--scale", "7"), 1, "scale 7"),
        (("cost", "srresnet", "--scale", "4"), 2, "--image"),
    ],
)
def test_bad_input_is_one_line(changed, status, words, capsys):
    assert main(changed) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and words in captured.err
