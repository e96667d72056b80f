"""papermill with parameters that must exist; the notebooks are made here, one cell each, to be quick."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sqlib.errors import DataError, InputError
from sqlib.experiments.run.notebook import NotebookError, notebook_parameters, run_notebook, select_notebooks


def write(path, *sources, parameters='profile = "smoke"\nseed = 0'):
    cells = [new_code_cell(source) for source in sources]
    if parameters is not None:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_parameters_are_passed_and_outputs_written(tmp_path):
    path = write(tmp_path / "a.ipynb", "print(profile, seed)")
    assert notebook_parameters(path) == ["profile", "seed"]
    out = run_notebook(path, tmp_path / "out" / "a.ipynb", seed=7)
    text = "".join(o.get("text", "") for cell in nbformat.read(out, 4).cells for o in cell.get("outputs", []))
    assert text == "smoke 7\n"
    assert all("outputs" not in c or not c["outputs"] for c in nbformat.read(path, 4).cells)


def test_unknown_parameter_raises_before_anything_runs(tmp_path):
    path = write(tmp_path / "a.ipynb", "raise SystemError('ran')")
    with pytest.raises(
        InputError, match=r"unknown parameter sede for notebook a.ipynb; expected profile, seed"
    ):
        run_notebook(path, tmp_path / "out.ipynb", sede=7)
    assert not (tmp_path / "out.ipynb").exists()


def test_notebook_without_parameters(tmp_path):
    path = write(tmp_path / "a.ipynb", "1", parameters=None)
    with pytest.raises(InputError, match="no cell tagged parameters"):
        run_notebook(path, tmp_path / "out.ipynb", seed=7)


def test_failing_cell_names_notebook_and_error(tmp_path):
    path = write(tmp_path / "bad.ipynb", "1 / 0")
    with pytest.raises(NotebookError, match=r"bad.ipynb failed in cell \d+: ZeroDivisionError"):
        run_notebook(path, tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").exists()


def test_a_kernel_that_dies_or_is_not_there(tmp_path):
    with pytest.raises(NotebookError, match=r"notebook a.ipynb failed: DeadKernelError"):
        run_notebook(write(tmp_path / "a.ipynb", "import os; os._exit(1)"), tmp_path / "out.ipynb")
    with pytest.raises(InputError, match=r"notebook b.ipynb: NoSuchKernel: .*nonsense; 'jupyter kernelspec"):
        run_notebook(write(tmp_path / "b.ipynb", "1"), tmp_path / "out.ipynb", kernel="nonsense")


def test_missing_and_damaged_notebooks(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run_notebook(tmp_path / "none.ipynb", tmp_path / "out.ipynb")
    (tmp_path / "damaged.ipynb").write_text("{")
    with pytest.raises(InputError, match="not a notebook"):
        run_notebook(tmp_path / "damaged.ipynb", tmp_path / "out.ipynb")


def test_select_notebooks(tmp_path):
    for name in ("02-b", "01-a"):
        write(tmp_path / f"{name}.ipynb", "1")
    assert [p.stem for p in select_notebooks(tmp_path)] == ["01-a", "02-b"]
    assert [p.stem for p in select_notebooks(tmp_path, ["02-b.ipynb"])] == ["02-b"]
    with pytest.raises(InputError, match="unknown notebook 03-c; expected one of 01-a, 02-b"):
        select_notebooks(tmp_path, ["03-c"])
    with pytest.raises(DataError, match="no notebooks"):
        select_notebooks(tmp_path / "empty")
