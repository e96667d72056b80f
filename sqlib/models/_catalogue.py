"""Third-party checkpoints, none of which is part of sqlib: addresses, checksums, licences."""

from __future__ import annotations

from dataclasses import dataclass

_CARN = "https://github.com/nmhkahn/CARN-pytorch"
_CARN_M = "40d3514f81cccd680d846cd5ab07af35f2c8e0e2"
_ELAN = "https://github.com/Fried-Rice-Lab/FriedRiceLab"
_ELAN_LIGHT = "a82cfd7ac2f07cedf870ea7f3bc293c8b21d1f60"
_BSRN = "https://github.com/xiaom233/BSRN"
_BSRN_ALL = "2d63d5239c9fa9810b9c1aea93e98d42ece09efc"
_EDSR = "https://github.com/sanghyun-son/EDSR-PyTorch"
_EDSR_MODELS = "https://cv.snu.ac.kr/research/EDSR/models"
_SWINIR = "https://github.com/JingyunLiang/SwinIR"
_ZOO = "https://github.com/WolframRhodium/Super-Resolution-Zoo"


@dataclass(frozen=True)
class Entry:
    """One file with weights of somebody else.

    Attributes
    ----------
    name : the network's name here
    scales : what the file holds
    file : what it is called in ``$SQLIB_WEIGHTS`` and in the cache
    licence : of the weights, as their publisher states it
    source : who published them
    url : address of the file; None where no publisher offers it in a form that loads
    sha256 : of the file that this project has held; None where nobody has: such an address is fetched on
        demand only
    """

    name: str
    scales: tuple[int, ...]
    file: str
    licence: str
    source: str
    url: str | None = None
    sha256: str | None = None


def _bsrn(scale: int, sha256: str) -> Entry:
    url = f"{_BSRN}/raw/{_BSRN_ALL}/experiments/pretrained_models/net_g_BSRN_x{scale}.pth"
    return Entry("bsrn", (scale,), f"bsrn_x{scale}.pth", "MIT", _BSRN, url, sha256)


def _edsr(name: str, scale: int, file: str) -> Entry:
    # The addresses stand in src/model/edsr.py of the release.
    return Entry(name, (scale,), file, "MIT", _EDSR, f"{_EDSR_MODELS}/{file}")


def _swinir(scale: int) -> Entry:
    # main_test_swinir.py of the release fetches its models from here.
    file = f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth"
    url = f"{_SWINIR}/releases/download/v0.0/{file}"
    return Entry("swinir-light", (scale,), file, "Apache-2.0", _SWINIR, url)


ENTRIES = (
    Entry(
        "carn-m",
        (2, 3, 4),
        "carn_m.pth",
        "MIT",
        _CARN,
        f"{_CARN}/raw/{_CARN_M}/checkpoint/carn_m.pth",
        "d48a759a84509351facb6b7c6d5bd6edec98b98519b8c464ee4ab44d2ba964ff",
    ),
    # Trained by that lab, not by ELAN's authors.
    Entry(
        "elan-light",
        (4,),
        "elan_light_x4.pth",
        "MIT",
        _ELAN,
        f"{_ELAN}/raw/{_ELAN_LIGHT}/modelzoo/ELAN/ELAN-demo.pth",
        "433400f0b3182d1c0e363edd122a070d04215283621b968367d2caac2de10493",
    ),
    _bsrn(2, "09bd1f85e017c7902e65a9c9770ee592efe3d013f6b5cf1fe7de8cabac4ba37d"),
    _bsrn(3, "6eb73a300aaec5029bc0de7f5ae85c02b8dcd8fdaf438c77f90272939fecca7e"),
    _bsrn(4, "47518e0f549f5696da0c84ca2d65bf50d789c7ac20e621909f5fd6c8c8d70bcb"),
    # Two releases for other frameworks, converted to our names by this project: no address loads.
    Entry(
        "carn-single",
        (2,),
        "carn_x2.pth",
        "MIT",
        f"{_CARN}, converted from {_ZOO}",
        sha256="721022257b1ad9f8d846f8ffb9f90c73005af0198c53f5b4a5d2b5644e7e1726",
    ),
    Entry(
        "edsr-8x64",
        (2,),
        "edsr_8x64_x2.pth",
        "Apache-2.0",
        f"https://github.com/krasserm/wdsr, converted from {_ZOO}",
        sha256="b21731038d7987a9cac1a5fa344b638f839b2478dd8e8b370f0327570c958bd6",
    ),
    _edsr("edsr-baseline", 2, "edsr_baseline_x2-1bc95232.pt"),
    _edsr("edsr-baseline", 3, "edsr_baseline_x3-abf2a44e.pt"),
    _edsr("edsr-baseline", 4, "edsr_baseline_x4-6b446fab.pt"),
    _edsr("edsr-large", 2, "edsr_x2-0edfb8a3.pt"),
    _edsr("edsr-large", 3, "edsr_x3-ea3ef2c6.pt"),
    _edsr("edsr-large", 4, "edsr_x4-4f62e9ef.pt"),
    # The release's README offers its folder checkpoint; scripts of others name the file beside CARN-M's.
    Entry("carn", (2, 3, 4), "carn.pth", "MIT", _CARN, f"{_CARN}/raw/master/checkpoint/carn.pth"),
    _swinir(2),
    _swinir(3),
    _swinir(4),
)


def entry(name: str, scale: int) -> Entry | None:
    """The entry of a network at a scale, or None."""
    return next((item for item in ENTRIES if item.name == name and scale in item.scales), None)
