"""``sqlib warmup``: after it, no process compiles a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys

USE = """
import torch, sqlib
from sqlib._warmup import compiled
from sqlib.codebook import fit_codebook, universal_set

network = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 1) for _ in range(3)])
data = [torch.rand(2, 3, 20, 31)]
for recipe in (sqlib.recipes.DFSQ(bits=4), sqlib.recipes.DFSQ(bits=3, selector="exact", normalize="static"),
               sqlib.recipes.Percentile(bits=4)):
    quantized = sqlib.quantize_model(network, recipe, data, skip=[])
    with torch.no_grad():
        quantized(data[0])
        quantized.double()(data[0].double())
fit_codebook(torch.randn(3, 500).tanh().numpy(), universal_set(4), 16)
found = compiled()
print(found.loaded > 0, found.compiled)
"""


def _run(*args):
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_after_warmup_nothing_is_compiled():
    first = json.loads(_run("-m", "sqlib", "warmup", "--json"))
    assert first["compiled"] + first["loaded"] > 20 and first["seconds"] > 0
    assert _run("-m", "sqlib", "warmup").startswith("0 kernel variants compiled")
    assert _run("-c", USE).split() == ["True", "0"]


def test_warmup_reaches_every_kernel_module():
    """New kernels have to be called there."""
    code = (
        "import importlib, pkgutil\n"
        "from sqlib import kernels\n"
        "from sqlib._warmup import warmup\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "warmup()\n"
        "for m in pkgutil.iter_modules(kernels.__path__, 'sqlib.kernels.'):\n"
        "    found = vars(importlib.import_module(m.name)).values()\n"
        "    own = [v for v in found if isinstance(v, Dispatcher) and v.__module__ == m.name]\n"
        "    if own and not any(v.signatures for v in own):\n"
        "        print(m.name)\n"
    )
    # Inlined into the kernels that call them, which is where their machine code is cached.
    inlined = {"sqlib.kernels.shortest_path", "sqlib.kernels.bisection"}
    missing = set(_run("-c", code).split()) - inlined
    assert not missing, f"add a call that reaches {missing} to sqlib/_warmup.py"
