"""DFSQ: its tables, one of our own about what lies beyond it, what it claims, and the gaps."""

from __future__ import annotations

import math
from dataclasses import replace

from sqlib.experiments.papers.schema import Gap, Method, Network, Paper, Statement, Table, printed
from sqlib.experiments.store.cells import CalibrationSpec
from sqlib.recipes import DFSQ

_SETS = ("set5", "set14", "b100", "urban100")
_BITS = (8, 6, 4, 3)
# 32 crops of 48 x 48 LR pixels as in the paper, but from the DIV2K images that are at hand.
_CROPS = CalibrationSpec("div2k", n=32, patch=48, batch=16)
# A fortieth of the published 20,000 iterations a block: minutes on two cores instead of hours.
_SHORT = {"schedule": "laptop"}
# The rows with the printed labels take the published constants as they are, in the published units.
_AS_PUBLISHED = {"schedule": "published", "relative": False}
_LOW = (4, 3, 2)
_IMAGE = {"statistics": "image"}
_OFF = {"retarget": False, "compensate": False, "correct_bias": False}
_SLOW = ("laptop", "full")
_FULL = ("full",)
_AT_HAND = ("edsr-baseline", "edsr-small", "carn-m")
_EDSR = Network("edsr-baseline", 4, "pretrained", published="EDSR")
_EDSR_X2 = Network("edsr-baseline", 2, "pretrained", published="EDSR")
_EDSR_SMALL = Network("edsr-small", 4, "pretrained")
_EDSR_SMALL_X2 = Network("edsr-small", 2, "pretrained")
_CARN_M = Network("carn-m", 4, "carn_m.pth")

OURS = "Exact points, compensated weights (ours)"
_RIVALS = (
    Method("FP", None),
    Method("MinMax", "minmax", _BITS),
    Method("DFSQ", "dfsq", _BITS),
    # The paper as written differs from the released code, whose rows carry the printed label.
    Method("DFSQ, the paper's variant", "dfsq", (4, 3), DFSQ.VARIANTS["paper"]),
    Method(OURS, "dfsq-compensated", _BITS),
    Method("BRECQ", "brecq", _BITS, _AS_PUBLISHED, profiles=_FULL),
    Method("QDROP", "qdrop", _BITS, _AS_PUBLISHED, profiles=_FULL),
    Method("BRECQ, 500 iterations", "brecq", _BITS, _SHORT, profiles=_SLOW, networks=_AT_HAND),
    Method("QDrop, 500 iterations", "qdrop", _BITS, _SHORT, profiles=_SLOW, networks=_AT_HAND),
)

TABLES = (
    Table(
        name="dfsq-table1",
        paper="dfsq",
        title="DFSQ Table 1: what channel-wise treatment and normalization do, EDSR x4 at 4 bits",
        networks=(_CARN_M, _EDSR_SMALL, _EDSR_SMALL_X2, _EDSR),
        methods=(
            Method("FP", None),
            Method(
                "w/o channel-wise, w/o normalization",
                "dfsq",
                (4,),
                {"channelwise": False, "points_per": "layer", "normalize": "none"},
            ),
            Method("channel-wise only", "dfsq", (4,), {"normalize": "none"}),
            Method("normalization only", "dfsq", (4,), {"channelwise": False, "points_per": "layer"}),
            Method("channel-wise + normalization (DFSQ)", "dfsq", (4,)),
            # The other reading of "without normalization": a fixed scale, so that the values fit the points.
            Method(
                "w/o channel-wise, fixed scale",
                "dfsq",
                (4,),
                {"channelwise": False, "points_per": "layer", "normalize": "static"},
            ),
            Method("channel-wise, fixed scale", "dfsq", (4,), {"normalize": "static"}),
        ),
        calibration=_CROPS,
        datasets=_SETS,
    ),
    Table(
        name="dfsq-table2",
        paper="dfsq",
        title="DFSQ Table 2: EDSR at 8, 6, 4 and 3 bits",
        networks=(
            _CARN_M,
            _EDSR_SMALL,
            _EDSR_SMALL_X2,
            _EDSR,
            _EDSR_X2,
        ),
        methods=_RIVALS,
        calibration=_CROPS,
        datasets=_SETS,
    ),
    Table(
        name="dfsq-table3",
        paper="dfsq",
        title="DFSQ Table 3: RDN at 8, 6, 4 and 3 bits",
        networks=(
            Network("rdn", 4, "pretrained", published="RDN", profiles=_FULL),
            Network("rdn", 2, "pretrained", published="RDN", profiles=_FULL),
        ),
        methods=_RIVALS,
        calibration=_CROPS,
        datasets=_SETS,
    ),
    Table(
        name="dfsq-appendix-c",
        paper="dfsq",
        title="DFSQ appendix C: universal sets of 2 to 5 word sets, 4 bits",
        networks=(_CARN_M, _EDSR_SMALL, _EDSR_SMALL_X2, _EDSR),
        methods=(
            Method("FP", None),
            *(Method(f"{words} word sets", "dfsq", (4,), {"words": words}) for words in (2, 3, 4, 5)),
            # Without the luck of k-means: the least error each universal set allows.
            *(
                Method(
                    f"{words} word sets, exact points", "dfsq", (4,), {"words": words, "selector": "exact"}
                )
                for words in (2, 3, 4, 5)
            ),
        ),
        calibration=_CROPS,
        datasets=_SETS,
    ),
    Table(
        name="dfsq-beyond",
        paper="dfsq",
        title="Beyond DFSQ: what each step gains, and which side loses what",
        networks=(_CARN_M, _EDSR_SMALL, _EDSR),
        methods=(
            Method("FP", None),
            Method("DFSQ", "dfsq", _LOW),
            Method("exact points", "dfsq", _LOW, {"selector": "exact"}),
            # As the steps below it do; the release names layers of EDSR alone, so DFSQ centres all of CARN-M.
            Method(
                "exact points, not centred behind ReLUs",
                "dfsq",
                _LOW,
                {"selector": "exact", "post_relu": "auto"},
                networks=("carn-m",),
            ),
            Method("exact points, least-squares weight ranges", "dfsq-compensated", _LOW, {**_IMAGE, **_OFF}),
            Method(
                "DFSQ's points, compensated weights",
                "dfsq-compensated",
                _LOW,
                {**_IMAGE, "selector": "release"},
            ),
            Method("exact points, compensated weights", "dfsq-compensated", _LOW, _IMAGE),
            Method(OURS, "dfsq-compensated", _LOW),
            Method("DFSQ, statistics per tile", "dfsq", _LOW, {"statistics": "patch", "patch": 16}),
            Method("weights only: min-max", "dfsq", _LOW, side="weights"),
            Method("weights only: compensated", "dfsq-compensated", _LOW, side="weights"),
            Method("activations only: Min-Max", "minmax", _LOW, side="activations"),
            Method("activations only: DFSQ", "dfsq", _LOW, side="activations"),
            Method("activations only: exact points", "dfsq-compensated", _LOW, _IMAGE, side="activations"),
            Method("activations only: exact points, per tile", "dfsq-compensated", _LOW, side="activations"),
        ),
        calibration=_CROPS,
        datasets=("set5", "set14"),
    ),
)

_SHORTER = {"BRECQ": "BRECQ, 500 iterations", "QDROP": "QDrop, 500 iterations"}
_FULL_ROW = "channel-wise + normalization (DFSQ)"

_HALF = Statement(
    "ours-halves-the-drop",
    "Exact points and compensated weights lose at most half of what DFSQ loses, at 6, 4 and 3 bits",
    "this project",
    "dfsq-table2",
    OURS,
    "DFSQ",
    (6, 4, 3),
    low=-math.inf,
    share=0.5,
)

STATEMENTS = (
    Statement(
        "dfsq-beats-minmax",
        "DFSQ loses no more than Min-Max at 4 and 3 bits, on every dataset",
        "DFSQ, section 4.2, Table 2",
        "dfsq-table2",
        "DFSQ",
        "MinMax",
        (4, 3),
    ),
    Statement(
        "dfsq-beats-minmax-on-rdn",
        "DFSQ loses no more than Min-Max at 4 and 3 bits, on every dataset",
        "DFSQ, section 4.2, Table 3",
        "dfsq-table3",
        "DFSQ",
        "MinMax",
        (4, 3),
    ),
    Statement(
        "brecq-below-minmax",
        "BRECQ ends below plain Min-Max at 6 and 4 bits",
        "DFSQ, Table 2",
        "dfsq-table2",
        "MinMax",
        "BRECQ",
        (6, 4),
        ours=_SHORTER,
    ),
    Statement(
        "qdrop-below-minmax",
        "QDrop ends below plain Min-Max at 6 and 4 bits",
        "DFSQ, Table 2",
        "dfsq-table2",
        "MinMax",
        "QDROP",
        (6, 4),
        ours=_SHORTER,
    ),
    Statement(
        "channel-wise-helps",
        "Statistics per channel lose less than statistics per layer",
        "DFSQ, section 4.3, Table 1",
        "dfsq-table1",
        _FULL_ROW,
        "normalization only",
        (4,),
    ),
    Statement(
        "collapse-without-normalization",
        "Without normalization the network collapses (we ask: it loses 5 dB more)",
        "DFSQ, section 4.3, Table 1 (no numbers printed)",
        "dfsq-table1",
        _FULL_ROW,
        "channel-wise only",
        (4,),
        low=5.0,
    ),
    Statement(
        "fixed-scale-instead",
        "The same with a fixed scale per channel, the other reading of 'without normalization'",
        "DFSQ, section 4.3, Table 1 (no numbers printed)",
        "dfsq-table1",
        _FULL_ROW,
        "channel-wise, fixed scale",
        (4,),
        low=5.0,
    ),
    Statement(
        "third-word-set",
        "From 2 to 3 word sets the score rises clearly (printed: 0.34 dB; we ask: 0.05 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "3 word sets",
        "2 word sets",
        (4,),
        low=0.05,
    ),
    Statement(
        "fourth-word-set",
        "From 3 to 4 word sets it hardly moves (printed: +0.002 dB; we ask: within 0.05 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "4 word sets",
        "3 word sets",
        (4,),
        low=-0.05,
        high=0.05,
    ),
    Statement(
        "fifth-word-set",
        "From 4 to 5 word sets it falls (printed: 0.051 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "4 word sets",
        "5 word sets",
        (4,),
    ),
    _HALF,
    replace(_HALF, name="ours-quarters-the-drop", text="... at most a quarter", share=0.25),
    Statement(
        "ours-is-safe-at-8-bits",
        "... and never 0.01 dB more at 8 bits",
        "this project",
        "dfsq-table2",
        OURS,
        "DFSQ",
        (8,),
        low=-0.01,
    ),
)

GAPS = (
    Gap(
        "dfsq-edsr-trained-for-hours",
        ("dfsq-table1/EDSR/*", "dfsq-table2/EDSR/*"),
        "The paper trained its own EDSR and does not publish it; ours learned from a teacher for hours "
        "(x4: 1.4, x2: 7.8) on some 600 images. It starts 0.2 to 0.6 dB lower in full precision. At x4 "
        "every method takes less away from it than in print; at x2 Min-Max takes more. What makes the "
        "difference is not tested.",
    ),
)

PAPER = Paper(
    name="dfsq",
    part=2,
    printed=printed("dfsq"),
    tables=TABLES,
    statements=STATEMENTS,
    gaps=GAPS,
    labels={"MinMax": "minmax", "DFSQ": "dfsq", "BRECQ": "brecq", "QDROP": "qdrop"},
)
