"""Pictures: what the artists hold, what they look like without text, and what they refuse."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import isdiag
from tests.helpers import optional

matplotlib = optional("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection, PathCollection  # noqa: E402
from matplotlib.image import imread  # noqa: E402

from isdiag import plots  # noqa: E402
from isdiag._core import bands  # noqa: E402
from tests.plots import pictures  # noqa: E402

each_case = pytest.mark.parametrize("name", pictures.CASES)
# Of pixels whose colour is another by a quarter of the scale: versions of a renderer stay below a thousandth.
ALLOWED = 2e-3


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def changed(name, figure):
    """Share of pixels that differ from the baseline."""
    expected = imread(pictures.BASELINE / f"{name}.png")[..., :3] * 255
    return np.mean(np.abs(pictures.pixels(figure) - expected).max(axis=-1) > 64)


@each_case
def test_looks_as_it_did(name):
    assert changed(name, pictures.drawn(name)) <= ALLOWED


@each_case
def test_another_font_is_no_change_and_a_moved_line_is(name):
    figure = pictures.drawn(name, **{"font.family": "monospace", "font.size": 13, "font.weight": "bold"})
    assert changed(name, figure) <= ALLOWED
    figure = pictures.drawn(name)
    # The longest line that is drawn, moved by a fiftieth of the axes: a few pixels.
    line = max((line for ax in figure.axes for line in ax.lines), key=lambda line: len(line.get_xdata()))
    low, high = line.axes.get_ylim()
    y = np.asarray(line.get_ydata(), float)
    logarithmic = line.axes.get_yscale() == "log"
    line.set_ydata(y * (high / low) ** 0.02 if logarithmic else y + 0.02 * (high - low))
    assert changed(name, figure) > ALLOWED


@each_case
def test_axes_come_back_and_new_ones_are_made(name):
    _, axes = pictures.axes_for(name)
    back = pictures.CASES[name](axes)
    assert np.all(back == axes)
    fresh = pictures.CASES[name](None)
    assert np.size(fresh) == np.size(axes)
    np.atleast_1d(fresh)[0].figure.canvas.draw()


def points(ax):
    """Positions of all scatters."""
    return np.concatenate([each.get_offsets() for each in ax.collections if isinstance(each, PathCollection)])


def test_khat_by_observation():
    smoothed = isdiag.psis(pictures.batch())
    ax = plots.khat(smoothed)
    k = smoothed.khat
    shown = {int(x): y for x, y in points(ax)}
    low, high = ax.get_ylim()
    for i, value in enumerate(k):
        if np.isfinite(value) and -1 < value < 2:
            assert shown[i] == pytest.approx(value)
        else:
            assert shown[i] == pytest.approx(high if value > 0 else low, abs=0.05)
    words = {each.get_label() for each in ax.collections} & {band.word for band in plots._style.EVERY_BAND}
    assert words == set(bands.words(k))
    assert (
        ax.get_title(loc="left")
        == f"{(~(k <= 0.63)).sum()} of 7 observations with a khat above its threshold, or unknown"
    )
    threshold = ax.lines[0].get_ydata()
    np.testing.assert_array_equal(threshold, isdiag.khat_threshold(smoothed.n))


def test_names_and_errors_of_khat():
    smoothed = isdiag.psis(pictures.batch())
    named = [text.get_text() for text in plots.khat(smoothed, names=[*"abcdef", "$x$ <b>"]).texts]
    assert "$x$ <b>" in named
    with pytest.raises(ValueError, match=r"names must hold one for each of 7 observations, got 1"):
        plots.khat(smoothed, names=["a"])


def test_intervals_of_khat():
    smoothed = isdiag.psis(pictures.batch()[:4])
    low, high = isdiag.khat_interval(smoothed.khat, smoothed.tail_length, level=0.6827)
    bars = [each for each in plots.khat(smoothed).collections if isinstance(each, LineCollection)]
    segments = [segment for each in bars for segment in each.get_segments()]
    ends = np.array([segment[:, 1] for segment in sorted(segments, key=lambda segment: segment[0, 0])])
    np.testing.assert_allclose(ends, np.clip(np.transpose([low, high]), -1, 2))


def test_results_without_n_or_of_one_row():
    for result in (
        SimpleNamespace(khat=[0.2, 0.9]),
        isdiag.psis(pictures.heavy()),
        isdiag.diagnose(pictures.batch()),
    ):
        ax = plots.khat(result)
        assert ax.get_xlim()[0] < 0 < ax.get_xlim()[1]


def test_the_bands_of_the_picture_are_those_of_the_table():
    ax = plots.khat(SimpleNamespace(khat=[-0.1, 0.6, 0.8, 1.5]))
    tints = {matplotlib.colors.to_hex(each.get_facecolor()) for each in ax.patches}
    assert tints == {band.paint for band in bands.BANDS}


def test_many_observations_keep_the_worst():
    k = np.random.default_rng(0).normal(0.2, 0.2, size=20_000)
    ax = plots.khat(SimpleNamespace(khat=k))
    shown = points(ax)
    assert len(shown) < 5000
    worst = np.argsort(-k)[:1000]
    assert set(worst) <= set(shown[:, 0].astype(int))


def test_tail_fit_is_the_fit_of_psis():
    log_w = pictures.heavy()
    smoothed = isdiag.psis(log_w)
    ax = plots.tail_fit(log_w)
    lines = {line.get_label(): line for line in ax.lines}
    x, y = lines["fitted Pareto"].get_data()
    # Smoothed weights are quantiles of the fit: they lie on its line, but for those cut at the largest.
    m, n = smoothed.tail_length, log_w.size
    raw = np.exp(log_w - np.logaddexp.reduce(log_w)) * n
    scale = raw[: n - m].sum() / np.exp(smoothed.log_weights[: n - m]).sum()
    on_line = np.exp(np.interp(np.log((m - np.arange(m) - 0.5) / n), np.log(y)[::-1], np.log(x)[::-1]))
    got = np.exp(smoothed.log_weights[-m:]) * scale
    np.testing.assert_allclose(got[:-3], on_line[:-3], rtol=2e-3)
    tail = lines["weights of the tail"].get_xdata()
    np.testing.assert_allclose(np.sort(tail), raw[-m:], rtol=1e-12)
    assert lines["threshold"].get_xdata()[0] == pytest.approx(raw[-m - 1])


@pytest.mark.parametrize(
    ("log_w", "status"),
    [
        (np.zeros(100), "FLAT"),
        (np.arange(10.0), "TAIL_TOO_SHORT"),
        (np.zeros(1), "ONE_DRAW"),
        (np.full(50, -np.inf), "NO_WEIGHT"),
        (np.r_[np.zeros(99), 60.0], "DEGENERATE_TAIL"),
        (np.r_[pictures.heavy(), 2000.0], "DEGENERATE_TAIL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_without_a_fit_say_why(log_w, status):
    ax = plots.tail_fit(log_w)
    assert status in ax.get_title(loc="left")
    assert "fitted Pareto" not in [line.get_label() for line in ax.lines]
    ax.figure.canvas.draw()
    plots.gamma_curve(log_w).figure.canvas.draw()


def test_a_poor_fit_leaves_the_strip():
    def outside(log_w):
        ax = plots.tail_fit(log_w)
        (strip,) = [each for each in ax.collections if each.get_label().startswith("95 %")]
        (line,) = [each for each in ax.lines if each.get_label() == "weights of the tail"]
        path = strip.get_paths()[0]
        return np.mean([not path.contains_point(point) for point in zip(*line.get_data(), strict=True)])

    rng = np.random.default_rng(1)
    assert outside(0.7 * rng.exponential(size=2000)) < 0.1
    two_levels = np.r_[0.3 * rng.normal(size=1950), 3 + 0.1 * rng.normal(size=50)]
    assert outside(two_levels) > 0.2


def test_gamma_curve_is_ess_and_khat():
    log_w = pictures.heavy(2.5)
    chosen = isdiag.select_gamma(log_w)
    ax = plots.gamma_curve(log_w)
    lines = {line.get_label(): line for line in ax.lines}
    gammas, ratio = lines["ESS / n"].get_data()
    assert ratio[9] == isdiag.ess(log_w, gamma=gammas[9]) / log_w.size
    markers = np.concatenate(
        [np.transpose(line.get_data()) for name, line in lines.items() if name.startswith("khat: ")]
    )
    for gamma, khat in markers[::5]:
        assert khat == isdiag.pareto_khat(log_w, gamma=gamma)
    assert any(np.all(np.asarray(line.get_xdata()) == chosen.gamma) for line in ax.lines)
    plots.gamma_curve(log_w, k_max=np.inf, rule="refit", gamma_max=2.0)


def test_weight_concentration_is_of_the_largest():
    log_w = pictures.heavy(3.0, 20_000)[::-1]
    ax = plots.weight_concentration(log_w)
    counts, shares = ax.lines[0].get_data()
    weights = np.sort(np.exp(isdiag.temper(log_w)))[::-1]
    np.testing.assert_allclose(shares, np.cumsum(weights)[np.asarray(counts) - 1], rtol=1e-12)
    assert [text.get_text().split(":")[0] for text in ax.texts] == ["1", "10", "100", "1000", "10000"]
    with pytest.raises(ValueError, match="log_w must have weight"):
        plots.weight_concentration([-np.inf, -np.inf])


def test_mse_curve_and_log_z_are_of_their_results():
    curve = pictures.curve()
    ax = plots.mse_curve(curve)
    dots = next(each for each in ax.containers if each.get_label() == "estimate at gamma").lines[0]
    np.testing.assert_array_equal(dots.get_ydata(), curve.estimate)
    assert ax.get_title(loc="left").endswith(f"gamma {curve.gamma[np.argmin(curve.mse)]:.3g}")
    path = pictures.path()
    total = SimpleNamespace(estimate=0.1, std_error=0.2)
    ax = plots.log_z(path, total)
    drawn = np.concatenate([np.transpose(each.lines[0].get_data()) for each in ax.containers])
    order = np.argsort(drawn[:-1, 0])
    np.testing.assert_array_equal(drawn[:-1][order, 1], path.log_z)
    assert drawn[-1].tolist() == [1.0, 0.1]


def test_training_run_is_the_history():
    history = pictures.history()
    axes = plots.training_run(history)
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[0] == f"gamma: {history['gamma'][-1]:.3f} in the end"
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), history["gamma"])
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), history["ess_ratio_raw"])
    np.testing.assert_array_equal(axes[4].lines[0].get_ydata(), history["max_weight"])
    alarms = sum(sum(history[name]) for name in history if name.startswith("alarm_"))
    assert titles[6] == f"alarms: {int(alarms)}"
    assert sum(len(each.get_positions()) for each in axes[6].collections) == alarms
    # A run that has not begun, and a step without a khat.
    steps = [dict(zip(history, metrics, strict=True)) for metrics in zip(*history.values(), strict=True)]
    for one, other in zip(plots.training_run(steps), axes, strict=True):
        for drawn, expected in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(drawn.get_ydata(), expected.get_ydata())
    plots.training_run({name: [] for name in history})
    plots.training_run({name: [-np.inf, np.nan] for name in history})
    # What no axis can hold is at its edge.
    edges = plots.training_run({**history, "pareto_k": [np.inf, -np.inf, 0.5] * 10})[2]
    np.testing.assert_array_equal(edges.lines[0].get_ydata()[:3], [2.0, -1.0, 0.5])
    with pytest.raises(ValueError, match="ax must hold 7 axes, got 1"):
        plots.training_run(history, ax=[axes[0]])
    with pytest.raises(KeyError, match="gamma_batch"):
        plots.training_run({"gamma": [1.0]})


@pytest.mark.parametrize("function", [plots.tail_fit, plots.gamma_curve, plots.weight_concentration])
def test_a_batch_is_refused(function):
    with pytest.raises(ValueError, match=r"log_w must be one row of draws, got shape \(2, 3\)"):
        function(np.zeros((2, 3)))


def test_curves_of_several_rows_are_refused():
    x = np.stack([pictures.heavy(1.0, 100)] * 2)
    with pytest.raises(ValueError, match="curve must be of one row"):
        plots.mse_curve(isdiag.mse_curve(x, x))
    with pytest.raises(ValueError, match="path must be of one row"):
        plots.log_z(isdiag.geometric_path(x, 2 * x, [0.5, 1.0]))


def test_a_million_draws_become_few_points():
    log_w = pictures.heavy(2.0, 1_000_000)
    for ax in (plots.tail_fit(log_w), plots.weight_concentration(log_w)):
        assert max(len(line.get_xdata()) for line in ax.lines) <= 2001
    raw = np.sort(np.exp(isdiag.temper(log_w)) * log_w.size)[::-1]
    tail = next(line for line in plots.tail_fit(log_w).lines if line.get_label() == "weights of the tail")
    np.testing.assert_allclose(tail.get_xdata()[:1000], raw[:1000], rtol=1e-10)


def test_results_draw_their_picture():
    for result, same in (
        (isdiag.psis(pictures.batch()), plots.khat),
        (isdiag.truncate(pictures.batch()), plots.khat),
        (isdiag.diagnose(pictures.batch()), plots.khat),
        (pictures.curve(), plots.mse_curve),
        (pictures.path(), plots.log_z),
    ):
        ax = plt.figure().add_subplot()
        assert result.plot(ax=ax) is ax
        assert ax.get_title(loc="left") == same(result).get_title(loc="left")


def test_without_matplotlib_the_cure_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("isdiag.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'isdiag\[plot\]'"):
        pictures.curve().plot()


def test_the_gallery_shows_the_code_that_draws_and_says_what_is_seen():
    import make_gallery  # of tools/

    page = (make_gallery.RESULTS / "gallery.md").read_text()
    for picture in make_gallery.PICTURES:
        assert make_gallery.prompt(picture.code) in page
        assert make_gallery.image(f"gallery/{picture.name}", picture.alt) in page
        for theme in ("light", "dark"):
            assert (make_gallery.RESULTS / "gallery" / f"{picture.name}_{theme}.png").exists()
