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
    fingerprints : number of images -> :meth:`Dataset.fingerprint`, computed by this project from files in hand
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

    @property
    def verified(self) -> bool:
        """Whether a fingerprint of the complete set is on record."""
        return self.count in self.fingerprints


_ENTRIES = (
    Entry(
        "builtin",
        7,
        (),
        "colour photographs installed with scikit-image and scikit-learn; always there, no download",
    ),
    Entry("set5", 5, ("Set5",), "Set5, Bevilacqua et al., BMVC 2012", _EDSR_BENCHMARK),
    Entry("set14", 14, ("Set14",), "Set14, Zeyde et al., Curves and Surfaces 2010", _EDSR_BENCHMARK),
    Entry(
        "b100",
        100,
        ("B100", "BSD100", "BSDS100"),
        "test images of BSD300, Martin et al., ICCV 2001",
        _EDSR_BENCHMARK,
    ),
    Entry("urban100", 100, ("Urban100",), "Urban100, Huang et al., CVPR 2015", _EDSR_BENCHMARK),
    Entry(
        "manga109",
        109,
        ("Manga109",),
        "Manga109, Matsui et al., 2017; its owners hand it out on request",
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
    ),
    Entry("t91", 91, ("T91",), "training images of Yang et al., TIP 2010"),
    Entry(
        "bsds400", 400, ("BSDS400",), "BSDS500 without the 100 images of b100, Arbelaez et al., TPAMI 2011"
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
