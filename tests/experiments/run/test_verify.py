from __future__ import annotations

import pytest
from experiment_fakes import FakeBench, cells, content

from sqlib.errors import InputError
from sqlib.experiments.run.verify import (
    OTHER_FULL_PRECISION,
    OTHER_QUANTIZED,
    OTHER_TRAINED,
    SAME_MACHINE,
    compare,
    tolerance,
    verify,
)
from sqlib.experiments.store.cells import ResolvedCell
from sqlib.experiments.store.provenance import cpu_model, threads, versions
from sqlib.experiments.store.working import Store


@pytest.fixture
def measured(tmp_path):
    """Four records as FakeBench would make them."""
    store = Store(tmp_path / "measured")
    for cell in cells(4):
        resolved = FakeBench(tmp_path / "log").resolve(cell)
        store.write(resolved.key, content(resolved))
    return store


def change(store, i, **values):
    cell = cells(4)[i]
    key = ResolvedCell(cell, cell.dataset, "data-" + cell.dataset, "weights").key
    store.write(key, {**store.read(key), **values})


def scored(psnr, ssim=0.9, name="a"):
    return [{"name": name, "metrics": {"psnr": psnr, "ssim": ssim}}]


def test_all_agree(measured, bench):
    result = verify(sample=10, store=measured, bench=bench)
    assert str(result) == "verified 4 of 4" and result.ok
    assert sorted(bench.computed()) == ["set0", "set1", "set2", "set3"]


def test_sample_is_seeded(measured, tmp_path):
    draws = []
    for i, seed in enumerate((0, 0, 1, 2, 3)):
        bench = FakeBench(tmp_path / f"log{i}")
        verify(sample=2, seed=seed, store=measured, bench=bench)
        draws.append(bench.computed())
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws}) > 1


def test_a_difference_fails_and_is_named(measured, bench):
    change(measured, 1, images=scored(30.1))
    result = verify(sample=4, store=measured, bench=bench)
    assert not result.ok and str(result) == "verified 3 of 4 (1 differ)"
    assert "set1" in result.differ[0][0] and "mean psnr 30.000000, recorded 30.100000" in result.differ[0][1]


def test_a_single_image_that_differs_is_found():
    record = {"images": [*scored(29.0), *scored(31.0, name="b")]}
    again = {"images": [*scored(29.1), *scored(30.9, name="b")]}  # the mean is the same
    assert compare(record, again, OTHER_QUANTIZED).startswith("a psnr 29.100000, recorded 29.000000")


def test_images_are_compared_by_name_and_by_rank_where_names_differ():
    """A set is known by its pixels, whatever its files are called."""
    record = {"images": [*scored(29.0), *scored(31.0, name="b"), *scored(27.0, name="c")]}
    other_order = {"images": [*scored(31.0, name="b"), *scored(27.0, name="c"), *scored(29.0)]}
    assert compare(record, other_order, OTHER_QUANTIZED) == ""
    renamed = {"images": [*scored(31.0, name="1"), *scored(29.0, name="2"), *scored(27.0, name="3")]}
    assert compare(record, renamed, OTHER_QUANTIZED) == ""
    renamed["images"][0]["metrics"]["psnr"] += 0.2
    renamed["images"][2]["metrics"]["psnr"] -= 0.2
    assert compare(record, renamed, OTHER_QUANTIZED).startswith("c psnr 26.800000, recorded 27.000000")


def test_absent_or_other_inputs_are_skipped_and_counted(measured, tmp_path):
    change(measured, 0, weights_id="those of last year")
    result = verify(sample=4, store=measured, bench=FakeBench(tmp_path / "log", absent=("set3",)))
    assert result.ok and str(result) == "verified 2 of 4 (2 skipped: weights or data absent)"
    assert "the weights it was measured with" in dict(result.skipped)["fake x4 Min-Max 4 bit on set0"]


def test_nothing_verified_is_not_ok(measured, tmp_path):
    bench = FakeBench(tmp_path / "log", absent=("set0", "set1", "set2", "set3"))
    result = verify(sample=4, store=measured, bench=bench)
    assert not result.ok and str(result).startswith("verified 0 of 4")
    assert not verify(sample=1, store=Store(tmp_path / "nothing"), bench=bench).ok


def test_time_limit_starts_no_cell_that_would_end_late_but_always_one(measured, bench):
    for i in range(4):
        change(measured, i, seconds=1000.0)
    result = verify(sample=4, max_seconds=5, store=measured, bench=bench)
    assert len(result.verified) == 1 and len(result.not_reached) == 3 and result.ok
    assert "3 not reached in time" in str(result)


def test_nan_agrees_with_nan_only():
    record = {"images": scored("nan")}
    assert compare(record, {"images": scored(float("nan"))}, OTHER_QUANTIZED) == ""
    assert "psnr" in compare(record, {"images": scored(30.0)}, OTHER_QUANTIZED)
    assert "2 images, recorded 1" in compare(record, {"images": scored(30.0) * 2}, OTHER_QUANTIZED)


def test_records_of_changed_code_come_first(measured, bench, monkeypatch):
    monkeypatch.setattr("sqlib.experiments.run.verify.code_of", lambda cell: "made")
    change(measured, 2, code="what it was last year")
    for seed in range(5):
        verify(sample=1, seed=seed, store=measured, bench=bench)
    assert bench.computed() == ["set2"] * 5
    verify(sample=2, store=measured, bench=bench)
    assert bench.computed()[5] == "set2" and bench.computed()[6] != "set2"


def test_tolerance_depends_on_machine_and_recipe():
    record = {"versions": {}, "cpu": "elsewhere", "threads": 1, "device": "cpu", "cell": {"recipe": None}}
    assert tolerance(record) == OTHER_FULL_PRECISION
    here = {"versions": versions(), "cpu": cpu_model(), "threads": threads(), "device": "cpu"}
    assert tolerance({**record, **here}) == SAME_MACHINE
    assert tolerance({**record, **here, "threads": threads() + 1}) == OTHER_FULL_PRECISION
    assert tolerance({**record, **here, "device": "cuda"}) == OTHER_FULL_PRECISION
    for name, expected in (("minmax", OTHER_QUANTIZED), ("brecq", OTHER_TRAINED)):
        [cell] = cells(1, recipe={"name": name, "version": 1})
        assert tolerance({**record, "cell": cell.to_dict()}) == expected
        assert tolerance({**record, **here, "cell": cell.to_dict()}) == SAME_MACHINE


@pytest.mark.parametrize("options", [{"sample": 0}, {"sample": 1, "max_seconds": 0}])
def test_bad_arguments(measured, options):
    with pytest.raises(InputError, match="expected"):
        verify(store=measured, **options)
