"""What sqlib knows about a network beside its forward pass, and the table of all networks."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from sqlib.errors import InputError
from sqlib.models._common import SRNetwork
from sqlib.models._layout import OWN, Layout


@dataclass(frozen=True)
class WeightsFile:
    """A file with weights of somebody else; none is part of sqlib.

    Attributes
    ----------
    name : str
        The network's name here.
    scales : tuple of int
        What the file holds.
    file : str
        What it is called in ``$SQLIB_WEIGHTS`` and in the cache.
    licence, source : str
        Of the weights as their publisher states it, and who that is.
    url : str or None
        Address of the file; None where no publisher offers it in a form that loads.
    sha256 : str or None
        Of the file that this project has held; None where nobody has: such an address is fetched on demand
        only.
    """

    name: str
    scales: tuple[int, ...]
    file: str
    licence: str
    source: str
    url: str | None = None
    sha256: str | None = None


def _own_names(names: Collection[str], network: Any) -> Layout:
    return OWN


@dataclass(frozen=True, kw_only=True, eq=False)
class Spec:
    """What sqlib knows about a network: a module of ``sqlib.models`` ends with one, called ``SPEC``.

    Attributes
    ----------
    network : subclass of :class:`SRNetwork`
        Built as ``network(name, scale, **options)``.
    names : mapping of str to mapping
        Every name that :func:`create` knows it by, and the options of that variant.
    skip : tuple of str
        ``fnmatch`` patterns over module names that stay in full precision unless `sqlib.quantize_model` is
        told otherwise; becomes the class's ``default_skip``.
    blocks : str or None
        Names of its residual (dense, attention) blocks in the order in which they run; ``*`` stands for
        letters within one part between dots.
    features : str or None
        Modules whose outputs are compared in distillation, likewise. None: those of ``blocks``.
    channel_axis : int
        Of these outputs.
    unquantized : mapping of str to tuple of str
        Of a name, what papers that quantize it leave in full precision beside ``skip``: patterns of call
        sites, or of operands of call sites as ``"site:operand"``. `sqlib.cost` plans bits by it.
    fixed : mapping of str to int
        1x1 convolutions (patterns) that the release has a depth-wise one with fixed kernels in front of, and
        the entries of a kernel. Papers count its multiplications, whatever we compute instead.
    replaced : int
        How many of the last ``blocks``, or ``refined``, RefQSR replaces by refinement blocks.
    refined : str or None
        Names of the modules that these replace, where they are parts of the blocks: the network adds their
        output to their input.
    official : callable
        ``official(names, network)`` gives the :class:`Layout` of a release's file with tensors ``names``.
        Default: the names of the release are ours.
    files : tuple of WeightsFile
        Third parties' weights.
    training : mapping of (name, scale) to mapping
        Options of `sqlib.training.TrainConfig`, which trains that network.

    Raises
    ------
    InputError
        ``network`` is no such class or cannot be built from (name, scale, options); anything is said of a
        name that is not among ``names``.
    """

    network: type[SRNetwork]
    names: Mapping[str, Mapping[str, Any]]
    skip: tuple[str, ...]
    blocks: str | None = None
    features: str | None = None
    channel_axis: int = 1
    unquantized: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)
    replaced: int = 0
    refined: str | None = None
    official: Callable[[Collection[str], Any], Layout] = _own_names
    files: tuple[WeightsFile, ...] = ()
    training: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.network, type) and issubclass(self.network, SRNetwork)):
            raise InputError(f"SPEC: network={self.network!r}, expected a subclass of sqlib.models.SRNetwork")
        problems = [*self._problems()]
        if problems:
            raise InputError(f"SPEC of {self.network.__name__} ({self.network.__module__}): {problems[0]}")

    def _problems(self) -> Iterator[str]:
        if not self.names:
            yield "no names; expected one at least, as names={'my-network': {}}"
        for name, options in self.names.items():
            if not re.fullmatch(r"[\w.-]+", name):
                yield f"name {name!r}; expected letters, digits, '-', '_' and '.', as files are called so"
            try:
                inspect.signature(self.network).bind(name, 4, **options)
            except TypeError as error:
                yield f"{self.network.__name__}(name, scale, **{dict(options)}) cannot be called: {error}"
        patterns: Any
        for given, patterns in (("skip", self.skip), *self.unquantized.items()):
            if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
                yield f"{given}={patterns!r}; expected a tuple of patterns"
        said = (*(name for name, _ in self.training), *(file.name for file in self.files), *self.unquantized)
        for name in said:
            if name not in self.names:
                yield f"something is said of {name!r}, which is none of its names {', '.join(self.names)}"

    def file(self, name: str, scale: int) -> WeightsFile | None:
        """Third parties' weights of the network called ``name`` at a scale, or None."""
        return next((file for file in self.files if file.name == name and scale in file.scales), None)


_SPECS: dict[str, Spec] = {}
_FOLLOWERS: list[Callable[[Spec], None]] = []


def register(spec: Spec) -> Spec:
    """Make a network known to everything that takes one by name; returns ``spec``.

    A module outside sqlib calls it once, where it defines its network: :func:`create`, `sqlib.training` and
    the command line know the network in every program that imports this module. A class that is defined
    again (a notebook's cell that runs twice) replaces itself.

    Raises
    ------
    InputError
        Not a :class:`Spec`; a name is taken, or the class has another SPEC.
    """
    if not isinstance(spec, Spec):
        raise InputError(
            f"register() got {spec!r}, expected a sqlib.models.Spec, which says how a network is built: "
            "Spec(network=..., names={...}, skip=(...))"
        )
    network, present = spec.network, vars(spec.network).get("spec")
    for name in spec.names:
        taken = _SPECS[name].network if name in _SPECS else network
        if (taken.__module__, taken.__qualname__) != (network.__module__, network.__qualname__):
            raise InputError(
                f"two networks are called {name!r}: {taken.__qualname__} of {taken.__module__} and "
                f"{network.__qualname__} of {network.__module__}; rename one"
            )
    if present not in (None, spec):
        raise InputError(
            f"{network.__qualname__} of {network.__module__} has a SPEC already, with the names "
            f"{', '.join(present.names)}; describe a subclass of it, or define the class again"
        )
    for learn in _FOLLOWERS:
        learn(spec)
    network.spec, network.default_skip = spec, spec.skip
    _SPECS.update(dict.fromkeys(spec.names, spec))
    return spec


def follow(learn: Callable[[Spec], None]) -> None:
    """Call ``learn`` with the SPEC of every network there is, and of every one that is still registered."""
    for spec in dict.fromkeys(_SPECS.values()):
        learn(spec)
    _FOLLOWERS.append(learn)


def discover(package: ModuleType) -> None:
    """Register the SPEC of every module of a package, except where its name begins with an underscore.

    Raises
    ------
    InputError
        A module has none.
    """
    for entry in pkgutil.iter_modules(package.__path__):
        if not entry.name.startswith("_"):
            module = importlib.import_module(f"{package.__name__}.{entry.name}")
            if not isinstance(getattr(module, "SPEC", None), Spec):
                raise InputError(
                    f"{module.__file__} has no SPEC: a network's file ends with SPEC = Spec(...), and the "
                    "name of one that holds no network begins with an underscore"
                )
            register(module.SPEC)


def names() -> list[str]:
    """Names that :func:`create` understands."""
    return list(_SPECS)


def spec(name: str) -> Spec:
    """What is known about the network called ``name``.

    Raises
    ------
    InputError
        Unknown name; the message lists the known ones.
    """
    if name not in _SPECS:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(_SPECS)}")
    return _SPECS[name]
