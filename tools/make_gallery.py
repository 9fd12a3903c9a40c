"""Make docs/results/gallery.md and its pictures, light and dark, and the picture for the top of the README.

``pip install -e ".[plot]" && python tools/make_gallery.py`` takes some seconds. The code that the page
shows is the code that draws.
"""

from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from themes import DOCS, THEMES, image, save, theme

import isdiag
from isdiag import plots

RESULTS = DOCS / "results"

SETUP = """\
from importlib.resources import files
import numpy as np
import isdiag
from isdiag import plots
with (files("isdiag") / "data" / "stack_loss.npz").open("rb") as file:
    stored = np.load(file)
    log_ratios, days = stored["log_ratios"], stored["columns"]
x = np.random.default_rng(0).normal(size=2000)  # draws of N(0, 1)
log_w = 1.5 * x - 1.125                         # the target is N(1.5, 1)
"""


INTRODUCTION = """\
What `isdiag.plots` draws ([reference](../reference/plots.md)). The page is made by `python tools/make_gallery.py`.

Colours of the bands of khat have a contrast of 3 with white and with dark pages, and are told apart by those who lack
a kind of cone; markers say the same.

Effective sample size does not see what khat sees:
"""
EQUAL_ESS = (
    "Two sets of 20 000 weights with the same ESS, 7551: the tail of the one falls fast, khat 0.2, and errors can be "
    "believed; the other's is a Pareto tail with khat 0.9, and errors are too small."
)


class Picture(NamedTuple):
    """A picture of the gallery: what it is called, what to see in it, what draws it, what it says."""

    name: str
    heading: str
    text: str
    code: str
    alt: str


PICTURES = [
    Picture(
        "khat",
        "Which observations can be trusted?",
        "One marker an observation. Colour and shape are the band of its khat, the bar is the interval that the "
        "fit leaves (one standard error each way), the dashed line what this n can cope with. Those above are "
        "named.",
        "ax = plots.khat(isdiag.psis(log_ratios, axis=0), names=days)",
        "khat of 21 days: 18 are below the threshold of 0.7; days 2, 17 and 3 are above: errors too small.",
    ),
    Picture(
        "tail_fit",
        "What is khat made of?",
        "The share of draws with a larger weight, on logarithmic scales: a Pareto tail is a straight line, the flatter "
        "the worse. The strip is where 95 % of draws from the fit would be.",
        "ax = plots.tail_fit(log_ratios[:, 1])",
        "The largest 134 of 2000 weights of day 2 follow a Pareto line whose khat is 0.88: bad, and the fit is good.",
    ),
    Picture(
        "poor_fit",
        "What does a poor fit look like?",
        "Here 50 of 2000 draws belong to a level of their own. No Pareto tail has that step: the weights leave the "
        "strip, and khat speaks of a tail that there is not.",
        "two_levels = np.r_[0.3 * x[:1950], 3 + 0.1 * x[1950:]]\nax = plots.tail_fit(two_levels)",
        "Weights on two levels: between them the fitted curve passes where there are no draws, so khat means little.",
    ),
    Picture(
        "weight_concentration",
        "Who has the weight?",
        "The share that the largest draws have together. The dashed line is that of equal weights.",
        "ax = plots.weight_concentration(log_ratios[:, 1])",
        "The largest of 2000 draws has 7 % of the weight, the largest ten a third, the largest hundred over half.",
    ),
    Picture(
        "gamma_curve",
        "How far may a step lean on the weights?",
        "ESS falls and khat rises with gamma. The line is the largest gamma that keeps both limits; the shaded part "
        "breaks one.",
        "ax = plots.gamma_curve(log_w)",
        "ESS over n falls through its limit of 0.3 near gamma 0.8, while khat stays good: ESS sets gamma.",
    ),
    Picture(
        "mse_curve",
        "What does tempering do to an estimate?",
        "The mean of x under the target N(1.5, 1), tempered. Smaller bars are bought with another target's mean.",
        "ax = isdiag.mse_curve(log_w, x).plot()",
        "The tempered mean climbs from 0 to 1.4 at gamma 1, where alone its bar holds the truth, 1.5.",
    ),
    Picture(
        "log_z",
        "How far along the path do draws reach?",
        "log Z of the geometric path from N(0, 1) to N(3, 1), from draws of the first alone. Both are given without "
        "constants, so that it ends at 0.",
        "path = isdiag.geometric_path(-(x**2) / 2, -((x - 3) ** 2) / 2, np.linspace(0, 1, 11))\nax = path.plot()",
        "Up to gamma 0.6 khat is good and errors are small; beyond, markers turn fair and bad and error bars grow.",
    ),
    Picture(
        "training_run",
        "How is a training run doing?",
        "A policy drifts away from its sampler for 150 steps; from step 100 on the two are not normalised alike.",
        """\
from isdiag.rl import GammaController
rng, controller = np.random.default_rng(1), GammaController()
for step in range(150):
    spread, offset = 0.1 + 0.01 * step, 0.3 * (step > 100)
    drift = rng.normal(offset - spread**2 / 2, spread, size=512)
    _ = controller.step(drift, advantage=rng.normal(size=512))
axes = plots.training_run(controller.history)""",
        "As log-ratios spread gamma falls, which keeps the ESS of the weights in use near its limit while that of w "
        "falls to a tenth; after step 100 the offset leaves 0 and its alarm rings.",
    ),
]


def prompt(code: str) -> str:
    """Code as at Python's prompt."""
    lines = code.rstrip("\n").splitlines()
    shown = [("... " if line.startswith(" ") else ">>> ") + line for line in lines]
    return "```python\n" + "\n".join(shown) + "\n```\n"


def equal_ess() -> None:
    """Two sets of weights with one ESS, and the tails that tell them apart."""
    rng = np.random.default_rng(0)
    light, heavy = (np.expm1(k * rng.exponential(size=20_000)) / k for k in (0.2, 0.9))
    wanted = isdiag.ess(np.log(light))
    low, high = 0.0, 1e3  # of a constant weight beside the heavy tail, by bisection
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if isdiag.ess(np.log(heavy + middle)) < wanted else (low, middle)
    _, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", sharey=True)
    for ax, weights, said in zip(
        axes, (light, heavy + low), ("errors can be believed", "errors are too small"), strict=True
    ):
        log_w = np.log(weights)
        plots.tail_fit(log_w, ax=ax)
        ax.set_title(
            f"ESS {isdiag.ess(log_w):.0f} of 20 000, khat {isdiag.pareto_khat(log_w):.1f}: {said}",
            loc="left",
            fontsize="medium",
        )
    axes[1].set_ylabel("")
    axes[1].get_legend().remove()


def main() -> None:
    """Draw all in both themes, and write the page."""
    for name in THEMES:
        with theme(name):
            names: dict[str, object] = {}
            exec(SETUP, names)
            for picture in PICTURES:
                exec(picture.code, names)
                save(RESULTS / "gallery" / f"{picture.name}_{name}.png")
            equal_ess()
            save(RESULTS / "gallery" / f"equal_ess_{name}.png")
    parts = ["# Gallery\n", INTRODUCTION, image("gallery/equal_ess", EQUAL_ESS), prompt(SETUP)]
    for picture in PICTURES:
        parts += [
            f"## {picture.heading}\n",
            picture.text + "\n",
            prompt(picture.code),
            image(f"gallery/{picture.name}", picture.alt),
        ]
    (RESULTS / "gallery.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
