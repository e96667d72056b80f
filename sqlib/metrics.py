r"""PSNR and SSIM under an explicit protocol.

"PSNR on Set5" is not one number: colour plane, border crop and rounding each move it, by up to 2 dB. Every
score of this library therefore carries the :class:`Protocol` it was computed under, and the protocols of the
code bases that published results come from have names in :data:`PROTOCOLS`.

.. math::

    \mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\mathrm{mean}\,(x - y)^2}, \qquad
    \mathrm{SSIM} = \mathrm{mean}\,
    \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
         {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import ceil, exp, inf, log10
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import as_integer
from sqlib._levels import as_levels, check_ranges
from sqlib._pixels import to_uint8
from sqlib.errors import InputError
from sqlib.patches import Tiling
from sqlib.patches.tiling import check_tiling

__all__ = ["DEFAULT", "PROTOCOLS", "Protocol", "luma", "protocol", "psnr", "ssim"]

PEAK = 255.0

# Weights of R, G, B and the offset. The offset cancels in PSNR but not in SSIM.
_LUMA: dict[str, tuple[tuple[float, float, float], float]] = {
    # ITU-R BT.601 studio swing, as MATLAB's rgb2ycbcr and BasicSR: 16 (black) to 235 (white).
    "Y-BT601": ((65.481 / 255, 128.553 / 255, 24.966 / 255), 16.0),
    # EDSR: the same constants in another rounding, for a division by 256; white is 235.0002.
    "Y-EDSR": ((65.738 / 256, 129.057 / 256, 25.064 / 256), 16.0),
    # CADyQ's SSIM: EDSR's constants divided by 255; white is 235.86, above the studio range.
    "Y-CADyQ": ((65.738 / 255, 129.057 / 255, 25.064 / 255), 16.0),
}
_ROUNDINGS = ("uint8", "clip", "none")

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


@dataclass(frozen=True)
class Protocol:
    """How a super-resolved image is compared with the original.

    Attributes
    ----------
    color : "Y-BT601", "Y-EDSR", "Y-CADyQ" or "RGB"
        Plane on which PSNR is computed; "RGB" averages the squared error over all three channels.
    crop : "scale", "scale+6" or int
        Pixels removed on every side of both images.
    rounding : "uint8", "clip" or "none"
        The network's output is clipped to 0..255 and rounded; only clipped; or used as it is.
    luma_rounding : bool
        Round the luma plane to whole numbers, as MATLAB does when rgb2ycbcr is given uint8.
    ssim_color : str, optional
        Plane of SSIM where it differs from ``color``.
    tiling : Tiling, optional
        How :func:`sqlib.evaluate.evaluate` cuts what the network sees; None for whole images. The comparison
        itself is of whole images.
    """

    color: str = "Y-BT601"
    crop: str | int = "scale"
    rounding: str = "uint8"
    luma_rounding: bool = False
    ssim_color: str | None = None
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        for color in (self.color, self.ssim_color or self.color):
            if color not in ("RGB", *_LUMA):
                raise InputError(
                    f"unknown colour plane {color!r}; expected one of {', '.join(('RGB', *_LUMA))}"
                )
        if self.rounding not in _ROUNDINGS:
            raise InputError(f"unknown rounding {self.rounding!r}; expected one of {', '.join(_ROUNDINGS)}")
        if not isinstance(self.luma_rounding, bool):
            raise InputError(f"luma_rounding is {self.luma_rounding!r}; expected True or False")
        if self.crop not in ("scale", "scale+6"):
            crop = as_integer(self.crop)
            if crop is None or crop < 0:
                expected = "expected 'scale', 'scale+6' or a number of pixels >= 0"
                raise InputError(f"crop is {self.crop!r}; {expected}")
            object.__setattr__(self, "crop", crop)
        check_tiling(self.tiling)

    @property
    def id(self) -> str:
        """Short name made of all fields; equal protocols have equal ids."""
        parts = [self.color, f"crop={self.crop}", self.rounding]
        if self.luma_rounding:
            parts.append("integer-luma")
        if self.ssim_color not in (None, self.color):
            parts.append(f"ssim={self.ssim_color}")
        if self.tiling is not None:
            parts.append(self.tiling.id)
        return "/".join(parts)

    def border(self, scale: float | None) -> int:
        """Number of cropped pixels per side at ``scale``."""
        if not isinstance(self.crop, str):
            return self.crop
        if scale is None:
            raise InputError(f"protocol {self.id} crops by the scale: pass scale=")
        given: Any = scale
        if isinstance(given, bool) or not isinstance(given, Real) or not 1 <= float(given) < inf:
            raise InputError(f"scale is {scale!r}; expected a number of at least 1")
        return ceil(scale) + (6 if self.crop == "scale+6" else 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict that JSON can hold, ``tiling`` only where there is one; inverse of :meth:`from_dict`."""
        values = asdict(self)
        if self.tiling is None:
            del values["tiling"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Protocol:
        """Rebuild from :meth:`to_dict`; an unknown key is an error."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(
                f"unknown protocol fields {sorted(unknown)}; known: {[f.name for f in fields(cls)]}"
            )
        tiling = values.get("tiling")
        if isinstance(tiling, dict):
            values = {**values, "tiling": Tiling.from_dict(tiling)}
        return cls(**values)


DEFAULT = Protocol()

#: Presets. Sources: the evaluation code of the named release, as far as it differs from ``default``.
#:
#: - ``default``: what most tables mean by "PSNR (Y)": output clipped and rounded to 8 bits, border of
#:   ``scale`` pixels cut, BT.601 luma in floating point (not rounded).
#: - ``basicsr`` (BasicSR ``calculate_psnr(test_y_channel=True)``; 2DQuant, PTQ4SR, QuantSR) and ``swinir``
#:   (SwinIR ``main_test_swinir.py``): the same rules as ``default``, so the same id.
#: - ``matlab`` (papers that score saved PNG files with ``rgb2ycbcr(im2double(.))``: PAMS, DDTB, DFSQ): the
#:   same again, because a saved PNG is a clipped and rounded output.
#: - ``matlab-uint8``: ``rgb2ycbcr`` applied to uint8, which rounds the luma plane (SRCNN-era scripts).
#: - ``edsr`` (EDSR-PyTorch ``utility.calc_psnr`` on benchmarks; PAMS, DDTB, DFSQ, CADyQ, CABM logs): luma of
#:   the *difference* with constants for /256, which equals the difference of unrounded lumas because the
#:   transform is linear. That release computes no SSIM; here it is taken on the same plane plus 16.
#: - ``edsr-div2k``: the same function on DIV2K validation: RGB, border ``scale + 6``.
#: - ``cadyq``: PSNR as ``edsr``; SSIM on a plane with EDSR's constants over 255 instead of 256.
#: - ``elan`` (ELAN): output clipped but not rounded. That release also adds 0.005 dB before printing, which
#:   is not a protocol and is not done here.
PROTOCOLS: dict[str, Protocol] = {
    "default": DEFAULT,
    "basicsr": Protocol(color="Y-BT601", crop="scale", rounding="uint8"),
    "swinir": Protocol(color="Y-BT601", crop="scale", rounding="uint8"),
    "matlab": Protocol(color="Y-BT601", crop="scale", rounding="uint8"),
    "matlab-uint8": Protocol(color="Y-BT601", crop="scale", rounding="uint8", luma_rounding=True),
    "edsr": Protocol(color="Y-EDSR", crop="scale", rounding="uint8"),
    "edsr-div2k": Protocol(color="RGB", crop="scale+6", rounding="uint8"),
    "cadyq": Protocol(color="Y-EDSR", crop="scale", rounding="uint8", ssim_color="Y-CADyQ"),
    "elan": Protocol(color="Y-BT601", crop="scale", rounding="clip"),
}


def protocol(name: str | Protocol) -> Protocol:
    """The preset called ``name``; a :class:`Protocol` is passed through."""
    if isinstance(name, Protocol):
        return name
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def luma(rgb: NDArray[Any], color: str = "Y-BT601") -> NDArray[np.float64]:
    """Luma plane in gray levels, not rounded.

    Parameters
    ----------
    rgb : array (H, W, 3), values 0..255
    color : "Y-BT601" (16..235), "Y-EDSR" or "Y-CADyQ"

    Returns
    -------
    float64 array (H, W)
    """
    if color not in _LUMA:
        raise InputError(f"unknown luma {color!r}; expected one of {', '.join(_LUMA)}")
    rgb = np.asarray(rgb)
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f"luma expects an array (H, W, 3), got shape {rgb.shape}")
    (red, green, blue), offset = _LUMA[color]
    x = rgb.astype(np.float64, copy=False)
    return red * x[..., 0] + green * x[..., 1] + blue * x[..., 2] + offset


def psnr(
    sr: NDArray[Any], hr: NDArray[Any], protocol: str | Protocol = DEFAULT, *, scale: float | None = None
) -> float:
    """Peak signal-to-noise ratio in dB.

    Parameters
    ----------
    sr : array (H, W, 3), uint8 or floating point in 0..255
        The super-resolved image; clipped and rounded as the protocol says.
    hr : array (H, W, 3)
        The original.
    protocol : preset name or Protocol
    scale : number, needed by protocols that crop by the scale

    Returns
    -------
    float; ``inf`` for equal planes. Equal to ``skimage.metrics.peak_signal_noise_ratio(data_range=255)`` on
    the same planes.

    Raises
    ------
    InputError
        Different or wrong shapes, non-finite values, an image that the crop leaves empty.
    """
    rules = _resolve(protocol)
    x, y = _planes(sr, hr, rules, rules.color, scale)
    error = float(np.mean(np.square(x - y)))
    return inf if error == 0 else 10 * log10(PEAK**2 / error)


def ssim(
    sr: NDArray[Any], hr: NDArray[Any], protocol: str | Protocol = DEFAULT, *, scale: float | None = None
) -> float:
    """Structural similarity: Gaussian window of 11 x 11, sigma 1.5, over the valid region.

    Parameters and errors as :func:`psnr`; the cropped image must hold at least one window. RGB protocols
    average the three channels.

    Returns
    -------
    float
        At most 1. Equal to ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255`` in float64 on the same planes.

    Notes
    -----
    Wang et al., "Image quality assessment", IEEE TIP 2004, equation (13). The window is separable and the two
    variances only occur as a sum, so four planes are filtered with 2 x 11 taps each.
    """
    rules = _resolve(protocol)
    x, y = _planes(sr, hr, rules, rules.ssim_color or rules.color, scale)
    size = 2 * _RADIUS + 1
    if min(x.shape[:2]) < size:
        raise InputError(
            f"SSIM needs at least {size} x {size} pixels, {x.shape[0]} x {x.shape[1]} are left after the crop"
        )
    return float(np.mean([_ssim_plane(x[..., c], y[..., c]) for c in range(x.shape[2])]))


def _resolve(name: str | Protocol) -> Protocol:
    return protocol(name)  # the functions' own parameter hides the module's function


def _planes(
    sr: NDArray[Any], hr: NDArray[Any], rules: Protocol, color: str, scale: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images rounded, cropped and converted as the protocol says: float64 (H, W, 1 or 3)."""
    sr, hr = as_levels(sr), as_levels(hr)
    if sr.shape != hr.shape or sr.ndim != 3 or sr.shape[2] != 3:
        advice = "; move the channels last" if sr.ndim == 3 and sr.shape == hr.shape and len(sr) == 3 else ""
        raise InputError(f"expected two images of one shape (H, W, 3), got {sr.shape} and {hr.shape}{advice}")
    check_ranges(sr, hr)
    border = rules.border(scale)
    if min(sr.shape[:2]) <= 2 * border:
        raise InputError(
            f"an image of {sr.shape[0]} x {sr.shape[1]} pixels is smaller than the crop of {border} per side"
        )
    inner = slice(border, -border or None)
    planes = []
    for image in (sr[inner, inner], hr[inner, inner]):
        if image.dtype != np.uint8:
            rounded = to_uint8(image)  # refuses NaN and infinity
            if rules.rounding == "clip":
                image = np.clip(image, 0, PEAK)
            elif rules.rounding == "uint8":
                image = rounded
        plane = image.astype(np.float64) if color == "RGB" else luma(image, color)[..., None]
        # MATLAB rounds half away from zero; luma is positive.
        planes.append(np.floor(plane + 0.5) if rules.luma_rounding and color != "RGB" else plane)
    return planes[0], planes[1]


def _gaussian_window() -> NDArray[np.float64]:
    taps = np.array([exp(-0.5 * (k / _SIGMA) ** 2) for k in range(-_RADIUS, _RADIUS + 1)])
    window: NDArray[np.float64] = taps / taps.sum()
    return window


def _filter_valid(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian-weighted mean of every window that lies inside the plane: (H - 10, W - 10)."""
    window = _gaussian_window()
    from scipy.ndimage import correlate1d

    rows = correlate1d(plane, window, axis=0)[_RADIUS:-_RADIUS]
    both: NDArray[np.float64] = correlate1d(rows, window, axis=1)[:, _RADIUS:-_RADIUS]
    return both


def _ssim_plane(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    mean_x, mean_y = _filter_valid(x), _filter_valid(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _filter_valid(x * y) - product
    variances = _filter_valid(x * x + y * y) - squares
    return float(
        np.mean((2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2)))
    )
