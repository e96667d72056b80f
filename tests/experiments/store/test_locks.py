from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from sqlib.experiments.store.locks import lock

HOLD = """
import sys, time
from pathlib import Path
from sqlib.experiments.store.locks import lock
with lock(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_second_holder_has_to_wait_its_turn(tmp_path):
    path = tmp_path / "lock"
    with lock(path) as first:
        assert first
        with lock(path) as second:
            assert not second
        with lock(path) as third:  # asking has released nothing
            assert not third
    with lock(path) as fourth:
        assert fourth


def test_a_killed_holder_releases_the_lock(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with lock(path) as mine:
            assert not mine
        os.kill(holder.pid, signal.SIGKILL)
        start = time.monotonic()
        with lock(path, wait=True) as mine:
            assert mine
        assert time.monotonic() - start < 10
    finally:
        holder.kill()
        holder.wait()


def test_an_error_inside_releases_the_lock_and_is_not_hidden(tmp_path):
    path = tmp_path / "lock"
    try:
        with lock(path):
            raise KeyError("inside")
    except KeyError as error:
        assert error.args == ("inside",)
    with lock(path) as mine:
        assert mine
