"""Execute notebooks through papermill, with parameters that must exist."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlib.errors import DataError, InputError, SqlibError


class NotebookError(SqlibError, RuntimeError):
    """A notebook's cell raised; the message names the notebook and the error."""


def notebook_parameters(path: str | os.PathLike[str]) -> list[str]:
    """Names assigned in the notebook's cell tagged ``parameters``, in order.

    Raises
    ------
    DataError
        No such file.
    InputError
        Not a notebook.
    """
    import papermill

    source = Path(path)
    if not source.is_file():
        raise DataError(f"notebook {str(source)!r} does not exist; give the path of an .ipynb file")
    try:
        found = papermill.inspect_notebook(str(source))
    except Exception as error:  # papermill and nbformat raise a dozen kinds for a damaged file
        raise InputError(
            f"{str(source)!r} is not a notebook that papermill can read: {_line(error)}"
        ) from error
    return list(found)


def check_parameters(path: str | os.PathLike[str], params: Iterable[str]) -> None:
    """InputError unless the notebook declares every one of ``params``."""
    known = notebook_parameters(path)
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise InputError(
            f"unknown parameter {', '.join(unknown)} for notebook {Path(path).name}; "
            f"expected {', '.join(known) if known else 'none: it has no cell tagged parameters'}"
        )


def run_notebook(
    path: str | os.PathLike[str], out: str | os.PathLike[str], /, *, kernel: str | None = None, **params: Any
) -> Path:
    """Execute a notebook with papermill and write the executed copy to ``out``.

    papermill only warns about a parameter that the notebook does not have and then runs with the default;
    here it is an error, found before anything runs. The notebook runs in its own folder.

    Raises
    ------
    InputError
        A parameter that the notebook does not declare.
        Or a kernel that is not installed.
    NotebookError
        A cell raised, and ``out`` holds the notebook up to there; or the kernel died.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source, target = Path(path).resolve(), Path(out)
    check_parameters(source, params)
    if target.exists() and target.samefile(source):
        raise InputError(f"{str(out)!r} is the notebook itself; write the executed copy elsewhere")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(target.resolve()),
            parameters=params,
            kernel_name=kernel,
            cwd=str(source.parent),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        cell = f"cell {error.exec_count}" if error.exec_count else "a cell"
        raise NotebookError(
            f"notebook {source.name} failed in {cell}: {error.ename}: {error.evalue}"
        ) from error
    except RuntimeError as error:  # nbclient's DeadKernelError
        raise NotebookError(
            f"notebook {source.name} failed: {_line(error)} (killed for memory, perhaps)"
        ) from error
    except KeyError as error:  # jupyter_client's NoSuchKernel
        raise InputError(
            f"notebook {source.name}: {_line(error)}; 'jupyter kernelspec list' lists what is installed"
        ) from error
    return target


def select_notebooks(folder: str | os.PathLike[str], only: Iterable[str] = ()) -> list[Path]:
    """Notebooks of a folder in reading order, or ``only`` those named, with or without ``.ipynb``."""
    root = Path(folder)
    found = sorted(root.glob("*.ipynb"))
    if not found:
        raise DataError(f"no notebooks in {str(root)!r}; give their folder with --notebooks")
    wanted = {name.removesuffix(".ipynb") for name in only}
    unknown = sorted(wanted - {path.stem for path in found})
    if unknown:
        raise InputError(
            f"unknown notebook {', '.join(unknown)}; expected one of {', '.join(path.stem for path in found)}"
        )
    return [path for path in found if not wanted or path.stem in wanted]


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
