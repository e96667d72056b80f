"""What is known about each image set: size, folder names, where it comes from, fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlib.errors import InputError

__all__ = ["CATALOGUE", "Entry", "entry", "names"]

_EDSR_BENCHMARK = "https://cv.snu.ac.kr/research/EDSR/benchmark.tar"
_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K"


@dataclass(frozen=True)
class Entry:
    """One image set.

    Attributes
    ----------
    name : name for :func:`sqlib.datasets.load`
    count : number of images of the complete set; fewer give the true name ``name[found]``
    folders : folder names it is distributed under (case is ignored)
    about : what it is and who made it
    url : address of an archive, only where a publisher documents it
    url_verified : whether this project fetched ``url`` and compared the pixels
    stem : regular expression that the file names (without extension) must match
    low_resolution : factor, for sets that only consist of low-resolution images
    fingerprints : number of images -> :meth:`Dataset.fingerprint`, computed from files this project holds
    """

    name: str
    count: int
    folders: tuple[str, ...]
    about: str
    url: str | None = None
    url_verified: bool = False
    stem: str = r".+"
    low_resolution: int | None = None
    fingerprints: Mapping[int, str] = field(default_factory=dict)


_ENTRIES = (
    Entry(
        "builtin",
        7,
        (),
        "colour photographs installed with scikit-image and scikit-learn; always there, no download",
        fingerprints={7: "c72e87115b41b5f6c85df3791531e98334da84eaaac903dd427657c9acca8473"},
    ),
    Entry(
        "set5",
        5,
        ("Set5",),
        "Set5, Bevilacqua et al., BMVC 2012",
        _EDSR_BENCHMARK,
        fingerprints={5: "64a35324b845927e43cbf466907a4de27c376391835a0a3a4f5091f34b3b1b94"},
    ),
    Entry(
        "set14",
        14,
        ("Set14",),
        "Set14, Zeyde et al., Curves and Surfaces 2010",
        _EDSR_BENCHMARK,
        fingerprints={14: "851ee0f88b85f8be4ccefb36376a7b287d0b6244408c2b157a67369e155474ce"},
    ),
    Entry(
        "b100",
        100,
        ("B100", "BSD100", "BSDS100"),
        "test images of BSD300, Martin et al., ICCV 2001",
        _EDSR_BENCHMARK,
        fingerprints={100: "464a0c28089257538f7bb6a03426932c6ae862d34a400fb484ce22e6d3998be9"},
    ),
    Entry(
        "urban100",
        100,
        ("Urban100",),
        "Urban100, Huang et al., CVPR 2015",
        _EDSR_BENCHMARK,
        fingerprints={
            30: "648a734cf3857d654f0f98140e52c55f17ad79cd162f9efec0b9b786869541e4",  # img_001 to img_030
            100: "369d62041e99582c999125bc3a102e1c83d118d209618bd87e37fbc493de8fb4",
        },
    ),
    Entry(
        "manga109",
        109,
        ("Manga109",),
        "Manga109, Matsui et al., 2017; its owners hand it out on request",
    ),
    Entry(
        "test2k",
        100,
        ("Test2K",),
        "Test2K: images 1201 to 1300 of DIV8K (Gu et al., ICCVW 2019), shrunk to 2K, as in CADyQ and RefQSR",
        stem=r"12(?!00)\d\d|1300",
    ),
    Entry(
        "test4k",
        100,
        ("Test4K",),
        "Test4K: images 1301 to 1400 of DIV8K, shrunk to 4K",
        stem=r"13(?!00)\d\d|1400",
    ),
    Entry(
        "div2k",
        800,
        ("DIV2K_train_HR",),
        "DIV2K training images 0001 to 0800, Agustsson and Timofte, CVPRW 2017",
        f"{_DIV2K}/DIV2K_train_HR.zip",
        stem=r"0(?!000)[0-7]\d\d|0800",
    ),
    Entry(
        "div2k-valid",
        100,
        ("DIV2K_valid_HR",),
        "DIV2K validation images 0801 to 0900",
        f"{_DIV2K}/DIV2K_valid_HR.zip",
        stem=r"08(?!00)\d\d|0900",
    ),
    Entry(
        "div2k-lrx4",
        100,
        ("DIV2K_LRx4",),
        "DIV2K test images 0901 to 1000, of which only the low-resolution side (x4) was published",
        stem=r"09(?!00)\d\d|1000",
        low_resolution=4,
        fingerprints={100: "5eb4e60f47c6ac5f61a4fed6ebd1a2f84d41e64e10c14ba658cf7897da934371"},
    ),
    Entry(
        "t91",
        91,
        ("T91",),
        "training images of Yang et al., TIP 2010",
        fingerprints={91: "cf610b3d677248d7129c2c120d8b1977b87114bbd6f9f31dcb67c210da709a18"},
    ),
    Entry(
        "bsds400",
        400,
        ("BSDS400",),
        "BSDS500 without the 100 images of b100, Arbelaez et al., TPAMI 2011",
        fingerprints={400: "86c05a038e37bdcea27a817a399dbead0803e1acbaa87c4388f0015ccf992348"},
    ),
)

CATALOGUE: dict[str, Entry] = {item.name: item for item in _ENTRIES}


def names() -> list[str]:
    """Names that :func:`sqlib.datasets.load` understands."""
    return list(CATALOGUE)


def entry(name: str) -> Entry:
    """The catalogue entry called ``name`` (case is ignored)."""
    if not isinstance(name, str) or name.lower() not in CATALOGUE:
        raise InputError(f"unknown dataset {name!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[name.lower()]
