"""The kernels beside torch's OpenMP, in forked and spawned data loaders, in threads: new processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = '''
import sys, threading
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset
from sqlib.codebook import Codebook
from sqlib.kernels import _threads
from sqlib.quantizers import SubsetQuantizer

_threads.VALUES_PER_THREAD = 1000  # several threads even for small data
torch.set_num_threads(2)


def quantizer():
    points = np.sort(np.random.default_rng(0).integers(-1024, 1025, (8, 16)), axis=1)
    nan = np.array(np.nan)
    return SubsetQuantizer(Codebook(points / 1024, nan, nan, "x", points, 1024, 0))


def image(i):
    return torch.randn(2, 8, 40, 40, generator=torch.Generator().manual_seed(i))


class Quantized(Dataset):
    def __init__(self):
        self.quantizer = quantizer()

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.quantizer(image(i))


def use_openmp_and_kernels():
    """Both thread pools exist and have run before anything forks or starts."""
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    with torch.no_grad():
        return quantizer()(conv(torch.randn(4, 8, 64, 64)))


def loader(method):
    use_openmp_and_kernels()
    plain = [torch.stack([quantizer().fake(image(i))]) for i in range(6)]
    found = list(DataLoader(Quantized(), num_workers=2, multiprocessing_context=method, timeout=100))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    use_openmp_and_kernels()  # and the parent still works


def threads():
    q, conv = quantizer(), torch.nn.Conv2d(8, 8, 3, padding=1)
    with torch.no_grad():
        inputs = [conv(image(i)) for i in range(4)]
        want = [q(x) for x in inputs]
    wrong = []

    def work(k):
        with torch.no_grad():
            for _ in range(30):
                x = conv(image(k))
                if not torch.equal(q(inputs[k]), want[k]) or not torch.isfinite(q(x)).all():
                    wrong.append(k)

    started = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in started]
    [t.join() for t in started]
    assert not wrong, wrong


if __name__ == "__main__":
    what = sys.argv[1]
    threads() if what == "threads" else loader(what)
    print("good")
'''


@pytest.mark.parametrize("what", ["fork", "spawn", "threads"])
def test_processes_and_threads(what, tmp_path):
    if what == "fork" and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    script = tmp_path / "script.py"  # a file, because spawned workers import it
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), what],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "good"), done.stderr


def test_import_compiles_nothing():
    code = (
        "from sqlib.kernels import planes as n\n"
        "kernels = n.fused_kernel, n.fused_few_kernel, n.apply_kernel, n.statistics_kernel\n"
        "print([len(k.signatures) for k in kernels])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[0, 0, 0, 0]", done.stderr
