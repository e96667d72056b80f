"""The tables of 2DQuant that need networks (its Tables 1 and 2 are counted, see ``derived.py``)."""

from __future__ import annotations

from sqlib.experiments._schema import Method, Network, Table
from sqlib.experiments.cells import CalibrationSpec

_SETS = ("set5", "set14", "b100", "urban100", "manga109")
_BITS = (4, 3, 2)
# The paper: one batch of 32 crops of 64 x 64 for DOBI, all of DF2K for DQC. Here one sample serves both.
_CROPS = CalibrationSpec("div2k", n=96, patch=48, batch=16)
_SMOKE, _SLOW, _FULL = ("smoke",), ("laptop", "full"), ("full",)
_SHORT = {"schedule": "laptop"}
# As every quantizer of the paper: one pair of real bounds a tensor, no integer zero point.
_REAL = {"weight_per": "tensor", "integer_zero": False}
_MOVED = {**_REAL, "integer_zero": True}
# The published rate: in absolute units, which for a network in 0..1 is about what its weights are.
_ABSOLUTE = {"learning_rate": 1e-2, "relative": False}
_LOW = (4, 2)
_TINY = {"schedule": "laptop", "iterations": 3, "batch": 2}
# Windowed attention is slow on a CPU: the larger images of the other two sets would add hours.
_OURS = tuple(
    Network("swinir-small", scale, "pretrained", datasets=("set5", "set14", "b100")) for scale in (4, 2)
)
_PRINTED = tuple(
    Network(
        "swinir-light",
        scale,
        "pretrained",
        published="SwinIR-light",
    )
    for scale in (2, 3, 4)
)
# Equal recipes stand together, as they share one network: the paper's own rate is 1e-2, its batch 32.
_ABLATIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("DOBI+DQC", {}),
    ("lr=1e-2", {}),
    ("batch=32", {}),
    ("lr=1e-1", {"learning_rate": 1e-1}),
    ("lr=1e-3", {"learning_rate": 1e-3}),
    ("lr=1e-4", {"learning_rate": 1e-4}),
    ("batch=4", {"batch": 4}),
    ("batch=8", {"batch": 8}),
    ("batch=16", {"batch": 16}),
)
_SWIN = ("swinir-small", "swinir-light")

TABLES = (
    Table(
        name="2dquant-table3",
        paper="2dquant",
        title="2DQuant Table 3: SwinIR-light at 4, 3 and 2 bits",
        networks=(
            *(Network("bilinear", scale, "none", published="none") for scale in (2, 3, 4)),
            *_OURS,
            *_PRINTED,
        ),
        methods=(
            # What the paper calls bicubic agrees with bilinear enlargement, see chapter 1.
            Method("Bicubic", None, networks=("bilinear",)),
            Method("FP", None, networks=_SWIN),
            Method("MinMax", "minmax", _BITS, _REAL, networks=_SWIN),
            Method("MinMax, integer zero point", "minmax", _BITS, _MOVED, networks=_SWIN),
            Method("Percentile", "percentile", _BITS, _REAL, networks=_SWIN),
            Method("DBDC+Pac", "dbdc-pac", _BITS, profiles=_SLOW, networks=_SWIN),
            Method("DOBI", "dobi", _BITS, networks=_SWIN),
            Method("DOBI, one-sided as printed", "dobi", _BITS, {"variant": "paper"}, networks=_SWIN),
            Method("mse bounds (ours)", "mse", _BITS, networks=_SWIN),
            Method("2DQuant", "twodquant", _BITS, profiles=_FULL, networks=_SWIN),
            Method("2DQuant, 300 iterations", "twodquant", _BITS, _SHORT, profiles=_SLOW, networks=_SWIN),
            Method("2DQuant, 3 iterations", "twodquant", _BITS, _TINY, profiles=_SMOKE, networks=_SWIN),
            Method(
                "mse bounds and DQC, 300 iterations (ours)",
                "twodquant",
                _BITS,
                {**_SHORT, "bounds_from": "mse"},
                profiles=_SLOW,
                networks=_SWIN,
            ),
        ),
        calibration=_CROPS,
        datasets=_SETS,
    ),
    Table(
        name="2dquant-table4",
        paper="2dquant",
        title="2DQuant Table 4: ablations, SwinIR-light x2 at 4 bits",
        networks=(_OURS[1], _PRINTED[0]),
        methods=(
            Method("FP", None),
            Method("MinMax (no DOBI, no DQC)", "minmax", (4,), _REAL),
            Method("DOBI only", "dobi", (4,)),
            Method("DQC only", "twodquant", (4,), {"bounds_from": "minmax"}, profiles=_FULL),
            Method(
                "DQC only, 300 iterations",
                "twodquant",
                (4,),
                {**_SHORT, "bounds_from": "minmax"},
                profiles=_SLOW,
            ),
            Method("DOBI+DQC, 300 iterations", "twodquant", (4,), _SHORT, profiles=_SLOW),
            *(Method(label, "twodquant", (4,), options, profiles=_FULL) for label, options in _ABLATIONS),
        ),
        calibration=_CROPS,
        datasets=("set5",),
    ),
    Table(
        name="2dquant-percentile",
        paper="2dquant",
        title="2DQuant's Percentile row: the value it does not give",
        networks=_OURS,
        methods=(
            Method("FP", None),
            *(
                Method(
                    f"percentile {share:g}",
                    "percentile",
                    _BITS,
                    {**_REAL, "percentile": share},
                )
                for share in (99.0, 99.5, 99.9, 99.99)
            ),
        ),
        calibration=_CROPS,
        datasets=("set5", "set14"),
    ),
    Table(
        name="2dquant-dqc",
        paper="2dquant",
        title="DQC, one choice at a time: its loss, its rate, what it trains",
        networks=(_OURS[0],),
        methods=(
            Method("FP", None),
            Method("DOBI", "dobi", _LOW),
            Method("DQC, 300 iterations", "twodquant", _LOW, _SHORT, profiles=_SLOW),
            Method(
                "DQC, loss of the release", "twodquant", _LOW, {**_SHORT, "loss": "release"}, profiles=_SLOW
            ),
            Method(
                "DQC, output loss alone", "twodquant", _LOW, {**_SHORT, "feature_weight": 0.0}, profiles=_SLOW
            ),
            Method("DQC, published rate", "twodquant", _LOW, {**_SHORT, **_ABSOLUTE}, profiles=_SLOW),
            Method(
                "DQC of bounds, biases and norms",
                "twodquant",
                _LOW,
                {**_SHORT, "train": ("bounds", "biases", "norms")},
                profiles=_SLOW,
            ),
        ),
        calibration=_CROPS,
        datasets=("set5", "set14"),
    ),
    Table(
        name="2dquant-cnn",
        paper="2dquant",
        title="The same bounds and the same DQC for convolutional networks",
        networks=(Network("edsr-small", 4, "pretrained"), Network("carn-m", 4, "carn_m.pth")),
        methods=(
            Method("FP", None),
            Method("MinMax", "minmax", (4,), _REAL),
            Method("DOBI", "dobi", (4,)),
            Method("mse bounds (ours)", "mse", (4,)),
            Method("DBDC+Pac", "dbdc-pac", (4,), profiles=_SLOW),
            Method("2DQuant, 300 iterations", "twodquant", (4,), _SHORT, profiles=_SLOW),
        ),
        calibration=_CROPS,
        datasets=("set5", "set14"),
    ),
)
