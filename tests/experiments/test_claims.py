from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sqlib.experiments import claims
from sqlib.experiments.claims import claim

HOLD = """
import sys, time
from pathlib import Path
from sqlib.experiments.claims import claim
with claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_second_claim_waits_its_turn_and_the_file_goes(tmp_path):
    path = tmp_path / "lock"
    with claim(path) as first:
        assert first
        with claim(path) as second:
            assert not second
        assert path.exists()
    assert not path.exists()
    with claim(path) as third:
        assert third


@pytest.mark.skipif(claims.fcntl is None, reason="needs fcntl")
def test_a_killed_holder_releases_the_claim(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with claim(path) as mine:
            assert not mine
        os.kill(holder.pid, signal.SIGKILL)
        start = time.monotonic()
        with claim(path, wait=True) as mine:
            assert mine
        assert time.monotonic() - start < 10
    finally:
        holder.kill()
        holder.wait()


def test_without_fcntl_the_file_is_the_lock_and_a_leftover_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "fcntl", None)
    path = tmp_path / "lock"
    with claim(path) as first:
        assert first
        with pytest.warns(UserWarning, match="Delete the file"), claim(path, wait=True) as second:
            assert not second
    assert not path.exists()
