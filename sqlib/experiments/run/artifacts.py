"""Networks whose recipe learns: made once, kept as a file, shared by all cells and processes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sqlib.errors import DataError, InputError, StoreError
from sqlib.experiments.store.locks import lock
from sqlib.experiments.store.working import set_aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from sqlib import QuantizedModel


class Artifacts:
    """A folder of quantized networks by content: ``<key[:2]>/<key>.safetensors``.

    The key is that of all that decides the network (`ResolvedCell.network_key`), so that the cells of one
    network share one file. Locks are in ``.locks``, unfinished trainings in ``.unfinished/<key>``,
    files that could not be read and were made again in ``.damaged``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, key: str) -> Path:
        """Where the network of ``key`` is or would be."""
        return self.path / key[:2] / f"{key}.safetensors"

    def fitted(self, key: str, network: nn.Module, make: Callable[[Path], QuantizedModel]) -> QuantizedModel:
        """The network of ``key``: from its file, else made now, by one process at a time while others wait.

        Parameters
        ----------
        key : str
            `ResolvedCell.network_key`.
        network : nn.Module
            In full precision.
        make : callable
            Makes it, with a folder for its unfinished state: a process that is killed leaves its training
            where the next one goes on from.

        Raises
        ------
        StoreError
            The folder cannot be written to.
        """
        found = self._load(key, network, mend=False)
        if found is not None:
            return found
        try:
            for folder in (self.path / ".locks", self.file(key).parent):
                folder.mkdir(parents=True, exist_ok=True)
            with lock(self.path / ".locks" / f"{key}.lock", wait=True):
                # whoever held the lock may have made it
                found = self._load(key, network, mend=True)
                return found if found is not None else self._make(key, make)
        except OSError as error:
            raise StoreError(f"{self.file(key)} cannot be written: {error.strerror or error}") from error

    def _load(self, key: str, network: nn.Module, *, mend: bool) -> QuantizedModel | None:
        """The network from its file; None where there is none that can be read, which `mend` sets aside."""
        from sqlib import load_quantized

        path = self.file(key)
        if not path.is_file():
            return None
        try:
            return load_quantized(path, network)
        except (InputError, DataError) as error:
            if mend:
                target = set_aside(path, self.path / ".damaged")
                warnings.warn(f"{error}; moved to {target}, the network is made again", stacklevel=3)
            return None

    def _make(self, key: str, make: Callable[[Path], QuantizedModel]) -> QuantizedModel:
        unfinished = self.path / ".unfinished" / key
        made = make(unfinished)
        made.save(self.file(key))
        shutil.rmtree(unfinished, ignore_errors=True)
        return made
