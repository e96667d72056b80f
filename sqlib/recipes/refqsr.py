r"""RefQSR: a few reference patches in many bits help the other patches in few (Lee et al., IEEE TIP 2024).

Patches of an image are clustered. References run as the base recipe has it, at b_high. Queries have
activations of b_low and weights of

.. math:: b_{medium} = \operatorname{round}\left(\tfrac12 (b_{high} + b_{low})\right), \qquad
          \text{half to even,}

in all blocks but the first, which has b_high on both paths, and the last ones, in whose place `RefER` blocks
at b_high compare them with what their reference had there. The loss is that of the base on both paths
(equation 9),

.. math:: L = L_1^r + L_1^q + \lambda_{kd} (L_{kd}^r + L_{kd}^q)
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from glob import escape
from os import PathLike
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION, as_integer
from sqlib.engine import registry
from sqlib.engine.options import assign, bit_widths, choice, flag, integer, number, option
from sqlib.engine.recipe import Lesson, Observer, Recipe, Together
from sqlib.engine.registry import register
from sqlib.errors import InputError
from sqlib.recipes._trained import Trained
from sqlib.recipes.cabm import CABM
from sqlib.recipes.cadyq import CADyQ, started
from sqlib.recipes.ddtb import DDTB
from sqlib.recipes.pams import PAMS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site
    from sqlib.fit.quantization_aware.task import Answer
    from sqlib.fit.samples import Drawn
    from sqlib.reference.clustering import ClustBlock, Cluster

BASES = (PAMS, DDTB, CADyQ, CABM)
_NAMES = {base.name: base for base in BASES}


def _base(name: str, value: Any) -> Trained | str:
    """A name stays one until the bits are known."""
    named = isinstance(value, str) and registry.canonical(value)
    if named in _NAMES:
        return str(named)
    found = Recipe.from_dict(dict(value)) if isinstance(value, Mapping) else value
    if not isinstance(found, Trained) or type(found) not in BASES:
        known = ", ".join(base.__name__ for base in BASES)
        raise InputError(
            f"base={value!r}: expected one of {known}, whose trained bounds and bits references keep"
        )
    return found


def _blocks(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(f"{name}={value!r}: expected a pattern of module names such as 'blocks.*', or None")
    return value


def _file(name: str, value: Any) -> str:
    if not isinstance(value, (str, PathLike)) or not str(value):
        raise InputError(f"{name}={value!r}: expected 'textures' or the path of an extractor's file")
    return str(value)


def _kmeans(on: str) -> Callable[[ClustBlock], Cluster]:
    def make(own: ClustBlock) -> Cluster:
        from sqlib.reference.comparators import kmeans

        return lambda patches: kmeans(patches, len(own(patches).references), on=on)

    return make


def _scan(own: ClustBlock) -> Cluster:
    from sqlib.reference.comparators import ScanHead

    return ScanHead(tau=own.tau)


_OTHERS = {"kmeans-pixels": _kmeans("pixels"), "kmeans-gradients": _kmeans("gradients"), "scan": _scan}


@register("refqsr")
@dataclass(frozen=True)
class RefQSR(Trained):
    """Reference patches at the bits of the base, query patches at fewer, refined by their references.

    Parameters
    ----------
    bits
        b_high. None: those of `base`, or 8 for one that is named alone.
    base : Trained
        `PAMS`, `DDTB`, `CADyQ` or `CABM`: what the training starts from, and what references are. Or its
        name, as in ``RefQSR(bits=4, base="ddtb", schedule="laptop")``, for one with these bits and this
        schedule.
    low : int
        b_low, at most the base's (of CADyQ and CABM: its largest candidate). Nor may b_medium be more than
        the base's bits of weights.
    tau : float
        Cosine similarity of its features and its reference's below which a patch is its own reference; in
        training, below which two crops are no pair. With k-means it decides how many references there are,
        see `clustering`, and not who is whose query.
    clustering : str
        "clustblock"; or another way to choose references from Table 3's kind. "kmeans-pixels" and
        "kmeans-gradients" (`sqlib.reference.comparators.kmeans`) make as many clusters as ClustBlock, with
        this `tau` and `chains`, has references, at most one for each different patch; every patch of a
        cluster is a query of the member nearest to its centre, however similar they are. "scan"
        (`sqlib.reference.comparators.ScanHead`) takes the surest patch of each class, for those of the class
        that are similar enough to it in its own features. Pairs to train on are those of `extractor` in any
        case.
    chains : str
        What becomes of a patch that others point at and that points elsewhere itself; see
        `sqlib.reference.clustering.assign`. With "scan" there is none.
    extractor : str
        Of the features, as for `sqlib.reference.clustering.ClustBlock`.
    refiner : str
        "refer"; "none": the last blocks of queries stay and have b_high (``w/o RefER`` of Table 5), so that
        nothing comes of the options from `kept` on.
    refiners : int or None
        How many of the last blocks are replaced. None: 2 for SRResNet, 1 for CARN, 2 for ELAN.
    blocks : str or None
        Pattern of the modules that can be, in the order in which they run, each of which adds what it
        computes to its input. The first of them is the first block. None: the network's residual blocks by
        its SPEC.
    kept : str
        What references keep for their queries: features "input" to the block that is replaced, or its
        "output"; "query": the query is its own reference (``self-reference`` of Table 5); "nothing": zeros
        in the place of a reference.
    mode : str
        "difference" of the query and its warped reference, or both of them (``w/ concat`` of Table 5).
    preprocess : bool
        Whether features are normalized, pooled and quantized to b_low before they are matched; False: they
        are matched as they are, at b_high (``w/o pre-process`` of Table 5).
    norm, renormalize, pool, temperature : str, bool, int, float
        As in `sqlib.reference.refinement.RefER`.
    first_weights : str
        Bits of the first block's weights for queries, whose activations have b_high there: "high" or, as the
        paper's words about the weights of all blocks can be read, "medium". The printed totals have "high".
    match_rate : str
        Learning rate of the bounds of what is matched. "relative": that of the other bounds, times the width
        of these over the median width of those. "absolute": that of the other bounds. Where these are in
        the hundreds, as in SRResNet, one step of theirs is most of the range of normalized features, whose
        bounds lose all meaning within some steps.

    Notes
    -----
    The other options are those of `sqlib.recipes._trained.Trained`.

    Convolutions of RefER are not in the base. Over CADyQ each has a selector of its own, which begins as
    CADyQ's do; over CABM it has the table of the last layer that has one. The paper says nothing of them, nor
    of b_medium where references choose their bits: here it is the mean of the bits of weights and ``low``.

    The published schedule has 16 pairs of 48 x 48 pixels, 400 epochs of 1,000 iterations (CARN 800), rates
    halved after 150 (CARN 300). The table of a base `CABM` is its own; the paper makes it of CADyQ-RefQSR.
    Bounds of b_low start from those of the base. Both crops of a pair come from one picture, and their
    similarity is above tau.

    The network treats the patches of an image together (`sqlib.evaluate`, with a tiling). An image that is
    not cut is a reference.
    """

    version: ClassVar[int] = 2
    branches: ClassVar[bool] = True
    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {"steps": 400_000, "halve_every": 150_000, "bound_learning_rate": 0.01},
        "laptop": {"steps": 2_000, "halve_every": 750, "bound_learning_rate": 0.15},
    }

    bits: Any = option(None, bit_widths)  # noqa: RUF009  (frozen)
    base: Trained = option("pams", _base)  # noqa: RUF009  (frozen)
    low: int = integer(4, 2, 8)
    tau: float = number(0.5, -1, 1)
    chains: str = choice("promote", "follow", "isolate")
    extractor: str = option("textures", _file)
    clustering: str = choice("clustblock", *_OTHERS)
    refiner: str = choice("refer", "none")
    refiners: int | None = option(None, lambda name, value: None if value is None else _count(name, value))
    blocks: str | None = option(None, _blocks)
    kept: str = choice("input", "output", "query", "nothing")
    mode: str = choice("difference", "concat")
    norm: str = choice("position", "map")
    renormalize: bool = flag(False)
    preprocess: bool = flag(True)
    pool: int = integer(3, 1)
    temperature: float = number(1000.0, 0, above=True)
    match_rate: str = choice("relative", "absolute")
    first_weights: str = choice("high", "medium")

    def __post_init__(self) -> None:
        if self.bits is None:
            base = _base("base", self.base)
            assign(self, bits=Trained.bits if isinstance(base, str) else base.bits)
        super().__post_init__()

    def check(self) -> Mapping[str, Any]:
        """Bits are the base's, and few are not more than many."""
        base = self._named_base() if isinstance(self.base, str) else self.base
        high = _high(base)
        if FULL_PRECISION in (high, base.weight_bits):
            raise InputError(f"base={base}: RefQSR lowers the bits of weights and activations, 32 are none")
        if self.low > high:
            raise InputError(f"low={self.low}: expected at most the {high} bits that references have")
        medium = _medium(base.weight_bits, self.low)
        if medium > base.weight_bits:
            raise InputError(
                f"low={self.low} and a base with weights of {base.weight_bits} bits: those of queries would "
                f"have {medium} bits, more than those of references; give low={base.weight_bits} or less"
            )
        if self.bits != base.bits:
            raise InputError(
                f"bits={self.bits} and a base of {base.bits}: those of the base count, leave bits= out"
            )
        return {"base": base}

    @classmethod
    def upgrade(cls, version: Any, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """In version 1 bounds of the match had the rate of the others."""
        return {**options, "match_rate": "absolute"} if version == 1 else None

    def _named_base(self) -> Trained:
        """Of the bits and the schedule of this recipe."""
        name: Any = self.base
        schedule: dict[str, Any] = {} if self.schedule == "custom" else {"schedule": self.schedule}
        return _NAMES[name](bits=self.bits, **schedule)

    @property
    def medium_bits(self) -> int:
        """Of the weights on the query path."""
        return _medium(self.base.weight_bits, self.low)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the base's too."""
        return {**super().to_dict(), "base": self.base.to_dict()}

    def unquantized_in(self, network: nn.Module) -> tuple[str, ...]:
        """As the base has it."""
        return self.base.unquantized_in(network) if self.unquantized is None else self.unquantized

    def starts_from(self) -> Recipe | None:
        """The base."""
        return self.base

    # -- the network ------------------------------------------------------------------------------------

    def admit(self, network: nn.Module, pairs: Any, calibration: Sequence[Any] = ()) -> None:
        """Its blocks, its extractor and its RGB pictures are there before the base is trained."""
        from sqlib.engine.ranges import images
        from sqlib.reference.twins import Twins, check_pairs

        self.first_block(network), self.replaced(network)
        self._cluster()
        for image in (x for batch in calibration for x in images(batch)):
            if image.ndim != 4 or image.shape[1] != 3:
                raise InputError(
                    f"{type(network).__name__} is given {tuple(image.shape)}: the extractor that finds "
                    "references looks at RGB images (N, 3, h, w), so RefQSR is for networks of these"
                )
        check_pairs(pairs)
        if self.steps and pairs is not None and not hasattr(pairs, "draw"):
            Twins.of(pairs, self.extractor, self.tau)  # refuses pictures that it cannot use

    def prepare(self, network: nn.Module) -> None:
        """Put refinement blocks beside the last blocks."""
        import torch

        from sqlib.reference.refinement import RefER
        from sqlib.reference.two_path import RefinedBlock

        spec = getattr(network, "spec", None)
        adds = spec is None or self.blocks is not None or spec.refined is None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for number, name in enumerate(self.replaced(network) if self.refiner == "refer" else ()):
                block = network.get_submodule(name)
                like = next(iter(block.parameters()))
                refer = RefER(
                    _width(name, block),
                    pool=self.pool,
                    mode=self.mode,
                    norm=self.norm,
                    renormalize=self.renormalize,
                    preprocess=self.preprocess,
                    temperature=self.temperature,
                    dtype=torch.float32,  # the same draws whatever the default
                ).to(like.device, like.dtype)
                refined = RefinedBlock(block, refer, number, kept=self.kept, adds=adds)
                _place(network, name, refined)

    def watching(self) -> AbstractContextManager[None]:
        """Both paths at once."""
        from sqlib.reference.two_path import both

        return both()

    def together(self, model: QuantizedModel) -> Together:
        """References first, then their queries."""
        from sqlib.reference.two_path import each_upscaled

        cluster = self._cluster()
        return lambda patches: each_upscaled(model, patches, cluster)

    def _cluster(self) -> Cluster:
        """The packaged extractor is read once; a file of one's own may change."""
        from sqlib.reference.clustering import ClustBlock

        extractor = _packaged() if self.extractor == "textures" else self.extractor
        own = ClustBlock(extractor, self.tau, chains=self.chains)
        return own if self.clustering == "clustblock" else _OTHERS[self.clustering](own)

    def replaced(self, network: nn.Module) -> tuple[str, ...]:
        """Names of the blocks in whose place queries have others."""
        names = self._refinable(network)
        spec = getattr(network, "spec", None)
        count = self.refiners if self.refiners is not None else getattr(spec, "replaced", 0) or 1
        if count >= len(names):
            raise InputError(
                f"refiners={count} of {len(names)} blocks ({names[0]} to {names[-1]}): the first one stays, "
                f"so expected at most {len(names) - 1}"
            )
        return names[len(names) - count :]

    def first_block(self, network: nn.Module) -> str:
        """Name of the block that has b_high on both paths."""
        spec = getattr(network, "spec", None)
        return _named(network, self.blocks or (spec and spec.blocks))[0]

    def _refinable(self, network: nn.Module) -> tuple[str, ...]:
        spec = getattr(network, "spec", None)
        return _named(network, self.blocks or (spec and (spec.refined or spec.blocks)))

    # -- its quantizers ---------------------------------------------------------------------------------

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """The base's; `learn` adds those of b_medium."""
        return self.base.weight_quantizer(weight, site)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Of refinement blocks, the base's at their bits; the rest is that of the start."""
        if not self._own(site):
            return _Known()
        few = _matches(site) and self.preprocess
        bits = 8, self.low if few else _high(self.base)
        plain = DDTB(bits=bits, dynamic=0) if isinstance(self.base, DDTB) else PAMS(bits=bits)
        return plain.activation_observer(site, operand)

    @staticmethod
    def _own(site: Site) -> bool:
        return ".refer." in f".{site.module}."

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Take over the base's quantizers, add those of queries, and train both paths."""
        assert lesson.start is not None
        first, last = self.first_block(lesson.original), self.replaced(lesson.original)
        for site in model.sites.values():
            for role, key in site.activation_keys.items():
                self._activation(model, lesson.start, site, role, key.replace(".", "/"), first, last)
            kept = last if self.first_weights == "medium" else (first, *last)
            if site.weight_key is not None and self._lowered(site, kept, last):
                self._weight(model, site.weight_key)
        self._train(model, lesson)

    def _lowered(self, site: Site, kept: Sequence[str], last: Sequence[str]) -> bool:
        """Whether queries have fewer bits at a site: outside of the blocks that keep theirs."""
        inside = any(f"{_plain_name(site.module, last)}.".startswith(f"{name}.") for name in kept)
        return site.active and not inside and not self._own(site)

    def _activation(
        self,
        model: QuantizedModel,
        start: QuantizedModel,
        site: Site,
        role: str,
        key: str,
        first: str,
        last: Sequence[str],
    ) -> None:
        from sqlib.quantizers import ByPath, QuantizerBank, StaticBits

        if self._own(site):
            if isinstance(self.base, CADyQ) and not _matches(site):
                model.add_activation(key, self._chosen(site, model.activations[key], start))
            return
        original = _plain_name(key.replace("/", "."), last).replace(".", "/")
        known = copy.deepcopy(started(start, original))
        if self._lowered(site, (first, *last), last):
            by_width, selector = (
                ({w: known.at(w) for w in known.widths}, known.selector)
                if isinstance(known, QuantizerBank)
                else ({known.bits: known}, StaticBits(known.bits))
            )
            if self.low not in by_width:
                by_width[self.low] = _at(by_width[min(by_width)], self.low)
            known = QuantizerBank(by_width, ByPath("query", self.low, selector, tuple(by_width)))
        model.add_activation(key, known)

    def _chosen(self, site: Site, plain: Any, start: QuantizedModel) -> nn.Module:
        """A bank like those of the base, for a convolution that it does not have."""
        from sqlib.quantizers import ContentBits, QuantizerBank, StaticBits

        assert isinstance(self.base, CADyQ)
        widths = self.base.candidates
        own = {w: _at(plain, w) for w in widths}
        like = [q.selector for q in start.activations.values() if isinstance(q, QuantizerBank)]
        selector = copy.deepcopy(like[-1])
        if isinstance(selector, ContentBits) and site.weight_shape is not None:
            fresh = ContentBits(widths, site.weight_shape[1])
            fresh.gradient_scale.copy_(selector.gradient_scale)
            selector = fresh
        return QuantizerBank(own, selector if like else StaticBits(max(widths))).learnable()

    def _weight(self, model: QuantizedModel, key: str) -> None:
        from sqlib.quantizers import ByPath, QuantizerBank, StaticBits

        known: Any = model.weight_quantizer(key)
        if isinstance(known, QuantizerBank) or known is None or self.medium_bits == known.bits:
            return
        high = int(known.bits)
        by_width = {high: known, self.medium_bits: _following(known, self.medium_bits)}
        selector = ByPath("query", self.medium_bits, StaticBits(high), tuple(by_width))
        model.add_weight(key, QuantizerBank(by_width, selector))

    # -- training ---------------------------------------------------------------------------------------

    def criterion(self, network: nn.Module) -> Callable[[Answer], Tensor]:
        """The base's loss on both paths."""
        return BothPaths(self.base.criterion(network))

    def _train(self, model: QuantizedModel, lesson: Lesson) -> None:
        import torch

        from sqlib.reference.twins import Twins

        for quantizer in model.activations.values():
            getattr(quantizer, "learnable", lambda: None)()
        if self.steps and lesson.pairs is not None:
            like = next(p for p in model.network.parameters() if p.is_floating_point())
            dtype = torch.promote_types(like.dtype, torch.float32)  # half precision is trained in float32
            source = Twins.of(lesson.pairs, self.extractor, self.tau, device=str(like.device), dtype=dtype)
            lesson = dataclasses.replace(lesson, pairs=source)
        features = self.base.compared(model)
        rates = {"selectors": self.base.selector_rate(model.network)}
        factors = _match_factors(model) if self.match_rate == "relative" else {}
        self.train(
            model, lesson, teacher=lesson.original, features=features, rates=rates, factors=factors, run=_run
        )


def _run(model: QuantizedModel, drawn: Drawn) -> Tensor:
    from sqlib.reference.two_path import two_path

    return two_path(model, drawn.args[0])


@dataclass(frozen=True)
class BothPaths:
    """The sum of a loss over the two halves of a batch, references and queries.

    Attributes
    ----------
    single : callable
        The loss of each.
    """

    single: Callable[[Answer], Tensor]

    @property
    def needs_taught(self) -> bool:
        """Whether the single loss looks at the teacher's output."""
        return bool(getattr(self.single, "needs_taught", True))

    def __call__(self, answer: Answer) -> Tensor:
        half, taps = len(answer.output) // 2, len(answer.features) // 2
        total: Any = 0.0
        for path, rows in enumerate((slice(None, half), slice(half, None))):
            total = total + self.single(
                dataclasses.replace(
                    answer,
                    output=answer.output[rows],
                    target=answer.target[rows],
                    taught=None if answer.taught is None else answer.taught[rows],
                    features=answer.features[path * taps : (path + 1) * taps],
                    teacher_features=[feature[rows] for feature in answer.teacher_features],
                    passes=answer.passes[path : path + 1],
                )
            )
        return total


def _medium(high: int, low: int) -> int:
    return round((high + low) / 2)  # half to even


def _high(base: Trained) -> int:
    """Bits of activations on the path of references; the most that a chooser may choose."""
    return max(base.candidates) if isinstance(base, CADyQ) else base.activation_bits


@cache
def _packaged() -> nn.Module:
    from sqlib.reference.extractor import extractor

    return extractor("textures")


def _match_factors(model: QuantizedModel) -> dict[str, float]:
    """Factors of the rates of bounds of matches: their width over the median width of other bounds."""
    widths: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for key, quantizer in model.activations.items():
        for name, part in quantizer.named_modules(prefix=key):
            width = _extent(part)
            if width > 0:
                widths["/refer/match/" in name][name] = width
    if not widths[False]:
        return {}
    usual = median(widths[False].values())
    return {f"activations.{escape(name)}.*": width / usual for name, width in widths[True].items()}


def _extent(quantizer: nn.Module) -> float:
    """Width of a quantizer's range; 0 of what has no bounds."""
    from sqlib.quantizers import GatedQuantizer, SymmetricQuantizer, UniformQuantizer

    if isinstance(quantizer, SymmetricQuantizer):
        return float(quantizer.alpha.detach()) * (2 if quantizer.signed else 1)
    if isinstance(quantizer, (UniformQuantizer, GatedQuantizer)):
        return float((quantizer.upper - quantizer.lower).detach().max())
    return 0.0


class _Known:
    """Stands where the start has a quantizer."""

    passes = 1

    def update(self, x: Tensor, number: int = 0) -> None:
        """Nothing is looked at."""

    def finish(self) -> nn.Module:
        """Replaced at once."""
        from torch import nn

        return nn.Identity()


def _at(quantizer: Any, bits: int) -> Any:
    """A quantizer with the same bounds and other bits."""
    from sqlib.quantizers import GatedQuantizer, SymmetricQuantizer, UniformQuantizer

    if isinstance(quantizer, SymmetricQuantizer):
        return SymmetricQuantizer(float(quantizer.alpha.detach()), bits, signed=quantizer.signed)
    bounds = dataclasses.replace(quantizer.bounds(), bits=bits)
    if isinstance(quantizer, GatedQuantizer):
        made = GatedQuantizer(bounds, copy.deepcopy(quantizer.gate), float(quantizer.spread))
        made.on = quantizer.on
        return made
    return UniformQuantizer(bounds)


def _following(quantizer: Any, bits: int) -> nn.Module:
    from sqlib.quantizers import FollowingQuantizer

    return FollowingQuantizer(bits, percentile=quantizer.percentile)


def _named(network: nn.Module, pattern: str | None) -> tuple[str, ...]:
    """Modules of a pattern, two or more."""
    from sqlib.fit.features import find_taps

    if not pattern:
        raise InputError(
            f"RefQSR does not know the blocks of {type(network).__name__}: give blocks=, a pattern of the "
            "names of its residual blocks such as 'body.*'"
        )
    names = find_taps(network, (pattern,), None, option="blocks").names
    if len(names) < 2:
        raise InputError(f"blocks={pattern!r} are {', '.join(names)}, expected two or more")
    return names


def _matches(site: Site) -> bool:
    """Whether a site is the cost volume of a refinement block."""
    return site.module.endswith(".refer.match")


def _plain_name(name: str, replaced: Sequence[str]) -> str:
    """The name of a module or a quantizer before its block was refined."""
    for block in replaced:
        inside = name.removeprefix(f"{block}.block")
        if inside != name and inside[:1] in ("", ".", ":", "#"):
            return block + inside
    return name


def _place(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


def _count(name: str, value: Any) -> int:
    number = as_integer(value)
    if number is None or number < 1:
        raise InputError(f"{name}={value!r}: expected a number of blocks of at least 1, or None")
    return number


def _width(name: str, block: nn.Module) -> int:
    """Channels of what a block gives."""
    from torch import nn

    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        raise InputError(f"the block {name!r} has no convolution, so its channels are not known")
    return convolutions[-1].out_channels
