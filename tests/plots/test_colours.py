"""Colours of pictures and pages: contrast on white and on dark, and for those who lack a kind of cone.

The matrices, for linear RGB, are those of Machado, Oliveira and Fernandes (2009), A physiologically-based
model for simulation of color vision deficiency, IEEE Transactions on Visualization and Computer Graphics
15(6), severity 1.
"""

from itertools import combinations

import numpy as np
import pytest

from isdiag._core import bands
from isdiag._core.diagnosis import VERDICTS

DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE, DARK = "#ffffff", "#131416"
PAINTS = [band.paint for band in bands.BANDS]


def linear(paint):
    """Linear RGB of a colour by its code (IEC 61966-2-1)."""
    c = np.array([int(paint[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB, under D65."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    """That of WCAG 2."""
    low, high = sorted(TO_XYZ[1] @ linear(each) for each in (a, b))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_knows_black_from_white():
    assert contrast("#000000", WHITE) == pytest.approx(21.0)
    np.testing.assert_allclose(lab(linear(WHITE)), [100, 0, 0], atol=0.01)
    for matrix in DEFICIENCIES.values():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=2e-6)  # greys stay greys


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_bands_are_told_apart(deficiency):
    # 2.3 is a difference that is just noticed; red and green of traffic lights fall below 20 here.
    seen = [lab(DEFICIENCIES[deficiency] @ linear(paint)) for paint in PAINTS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 28


def test_paints_have_contrast_in_print_and_in_the_dark():
    paints = {*PAINTS, *bands.PAINTS.values()}
    for paint in paints:
        assert contrast(paint, WHITE) >= 3
        assert contrast(paint, DARK) >= 3


def test_other_colours_have_it_too_and_bands_have_shapes():
    pytest.importorskip("matplotlib")
    from isdiag.plots import _style

    for paint in (_style.BLUE, _style.GREY):
        assert min(contrast(paint, WHITE), contrast(paint, DARK)) >= 3
    assert len({_style.MARKERS[band.word] for band in _style.EVERY_BAND}) == len(_style.EVERY_BAND)


def test_every_verdict_has_a_paint():
    assert set(VERDICTS.values()) <= set(bands.PAINTS)
