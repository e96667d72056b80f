"""The fused kernel: equality with NumPy, layouts, threads, forks, caches."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sqlib.errors import InputError
from sqlib.kernels import fake_quantize, uniform


def reference(x, lower, scale, top):
    kind = x.dtype.type
    return np.rint(np.clip((x - kind(lower)) / kind(scale), kind(0), kind(top))) * kind(scale) + kind(lower)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_and_out(dtype):
    x = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(dtype)
    want = reference(x, -1.0, 0.1, 15)
    locked = x.copy()
    locked.flags.writeable = False
    for view in (x, np.asfortranarray(x), x[::-1], locked):
        got = fake_quantize(view, -1.0, 0.1, 15)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, reference(view, -1.0, 0.1, 15))
    out = np.empty_like(x)
    assert fake_quantize(x, -1.0, 0.1, 15, out=out) is out
    np.testing.assert_array_equal(out, want)
    fake_quantize(x, -1.0, 0.1, 15, out=x)
    np.testing.assert_array_equal(x, want)
    assert fake_quantize(np.empty((0, 3), dtype), 0.0, 1.0, 3).shape == (0, 3)


def test_channels_on_every_axis():
    x = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)
    for axis in (0, 1, 2, -1):
        n = x.shape[axis]
        lower, scale, top = -np.arange(1, n + 1), np.arange(1, n + 1) / 7, np.where(np.arange(n) == 1, 0, 15)
        got = fake_quantize(x, lower, scale, top, axis=axis)
        for c in range(n):
            want = reference(x.take(c, axis), lower[c], scale[c], top[c])
            np.testing.assert_array_equal(got.take(c, axis), want)


def test_special_values():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38], np.float32)
    got = fake_quantize(x, -1.0, 1.0, 3)
    np.testing.assert_array_equal(got, np.array([np.nan, 2, -1, 0, 0, 2, -1], np.float32))


def test_bad_input():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(InputError, match="dtype int64"):
        fake_quantize(np.zeros(3, np.int64), 0.0, 1.0, 3)
    with pytest.raises(InputError, match="out has shape"):
        fake_quantize(x, 0.0, 1.0, 3, out=np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="axis"):
        fake_quantize(x, np.zeros(3), np.ones(3), np.ones(3), axis=5)
    with pytest.raises(InputError, match=r"expected \(3,\)"):
        fake_quantize(x, np.zeros(2), np.ones(2), np.ones(2), axis=1)


def test_threaded_slices_equal_serial(monkeypatch):
    monkeypatch.setattr(uniform, "VALUES_PER_THREAD", 100)
    x = np.random.default_rng(2).normal(size=1001).astype(np.float32)
    want = fake_quantize(x, -1.0, 0.1, 15)
    np.testing.assert_array_equal(fake_quantize(x, -1.0, 0.1, 15, threads=3), want)
    with ThreadPoolExecutor(8) as pool:  # many Python threads at once, each asking for threads of its own
        for got in pool.map(lambda _: fake_quantize(x, -1.0, 0.1, 15, threads=3), range(64)):
            np.testing.assert_array_equal(got, want)


def _child(queue):
    x = np.linspace(-2, 2, 1 << 21, dtype=np.float32)
    queue.put(float(np.abs(fake_quantize(x, -1.0, 0.1, 20, threads=2) - reference(x, -1.0, 0.1, 20)).max()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_child_forked_after_threads_ran():
    x = np.linspace(-2, 2, 1 << 21, dtype=np.float32)
    fake_quantize(x, -1.0, 0.1, 20, threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    process.join(30)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive and process.exitcode == 0
    assert queue.get() == 0


def _python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_import_compiles_nothing():
    code = (
        "from sqlib.kernels import uniform, histogram as h\n"
        "ks = uniform._tensor_kernel, uniform._channel_kernel, h._histogram_kernel\n"
        "print([len(k.signatures) for k in ks])"
    )
    assert _python(code).stdout.strip() == "[0, 0, 0]"


def test_without_any_writable_cache_folder(tmp_path):
    """A cache path below a plain file cannot be created, whoever runs the test."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = (
        "import numba.core.caching as c\n"
        f"c._CacheLocator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError('{blocked.name}'))\n"
        "import numpy as np\n"
        "from sqlib.kernels import fake_quantize\n"
        "print(fake_quantize(np.array([0.4, 9.0]), 0.0, 1.0, 3).tolist())"
    )
    done = _python(code, NUMBA_CACHE_DIR=str(blocked / "cache"))
    assert done.stdout.strip() == "[0.0, 3.0]", done.stderr
