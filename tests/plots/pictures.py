"""One picture of each kind, without text; ``python -m tests.plots.pictures`` makes the baselines anew."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

import isdiag
from isdiag import plots
from isdiag.rl import GammaController

BASELINE = Path(__file__).parent / "baseline"


def heavy(scale=1.5, size=2000):
    """Log-weights with a tail, the same on every machine: quantiles of a normal law, roughly."""
    p = (np.arange(size) + 0.5) / size
    return scale * np.log(p / (1 - p)) / 1.7


def history():
    """Thirty steps of a controller on policies that drift apart."""
    controller = GammaController()
    for step in range(30):
        controller.step(heavy(0.1 + 0.1 * step, 128) - 0.05 * step, np.where(np.arange(128) % 3, 1.0, -1.0))
    return controller.history


def path():
    x = heavy(1.0, 800)
    return isdiag.geometric_path(-(x**2) / 2, -((x - 3) ** 2) / 2, np.linspace(0, 1, 9))


def curve():
    x = heavy(1.0, 500)
    return isdiag.mse_curve(2 * x, x)


def batch():
    """Rows of every band, without a tail and too short for one."""
    rows = np.stack([heavy(scale, 500) for scale in (0.3, 1.2, 1.8, 2.6, 5.0, 0.0)])
    return np.concatenate([rows, np.where(np.arange(500) < 4, rows[:1], -np.inf)])


# How each is drawn into the axes that it takes.
CASES = {
    "khat": lambda ax: plots.khat(isdiag.psis(batch()), ax=ax),
    "tail_fit": lambda ax: plots.tail_fit(heavy(), ax=ax),
    "gamma_curve": lambda ax: plots.gamma_curve(heavy(2.5), ax=ax),
    "weight_concentration": lambda ax: plots.weight_concentration(heavy(), ax=ax),
    "mse_curve": lambda ax: plots.mse_curve(curve(), ax=ax),
    "log_z": lambda ax: plots.log_z(path(), ax=ax),
    "training_run": lambda ax: plots.training_run(history(), ax=ax),
}


def axes_for(name):
    """A small figure, and the axes that a picture takes, at places that no text moves."""
    if name == "training_run":
        figure = Figure(figsize=(4, 5), dpi=60)
        grid = figure.subplots(4, 2, gridspec_kw={"wspace": 0.3, "hspace": 0.5}).ravel()
        grid[7].remove()
        return figure, grid[:7]
    figure = Figure(figsize=(4, 3), dpi=60)
    return figure, figure.add_axes((0.1, 0.1, 0.8, 0.8))


def pixels(figure):
    """What is drawn, but for text and what is laid out by it; (height, width, 3) from 0 to 255."""
    for ax in figure.axes:
        if ax.get_legend():
            ax.get_legend().remove()
    for text in figure.findobj(Text):
        text.set_visible(False)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def drawn(name, **rc):
    """The figure of a case, under settings of matplotlib's own and these."""
    with rc_context({**rc}):
        figure, axes = axes_for(name)
        CASES[name](axes)
    return figure


if __name__ == "__main__":
    from matplotlib.image import imsave

    BASELINE.mkdir(exist_ok=True)
    for name in CASES:
        imsave(BASELINE / f"{name}.png", pixels(drawn(name)).astype(np.uint8))
