"""Numbers that README and docs quote are those of docs/results."""

import re
from pathlib import Path

import isdiag

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def table(text):
    """Cells of every row of the tables in a page."""
    rows = (line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in row] for row in rows]


SHAPES = ("1000", "10000", "1000000", "4000 x 1000", "4000 x 10000")
PEERS = {
    "PSIS: arviz-stats 0.8": ("psis", "arviz-stats"),
    "PSIS: arviz 0.23": ("psis", "arviz"),
    "gamma by ESS: particles 0.3": ("select_gamma", "particles"),
    "gamma by ESS: blackjax 1.7, x64": ("select_gamma", "blackjax"),
}


def test_readmes_table_of_times():
    rows = table((RESULTS / "performance_table.md").read_text())
    measured = {tuple(row[:3]): row[5] for row in rows if len(row) > 5}
    quoted = {row[0]: row[1:] for row in table((ROOT / "README.md").read_text()) if row[0] in PEERS}
    assert set(quoted) == set(PEERS)
    for name, (operation, peer) in PEERS.items():
        for shape, said in zip(SHAPES, quoted[name], strict=True):
            exact = measured[operation, shape, peer]
            assert said == "" if exact == "-" else float(said) == float(f"{float(exact):.2g}"), name


QUOTED = {
    "`snis`, `confidence_interval`": ("SNIS", "all"),
    "... twelve scenarios made last, looked at once": ("SNIS", "intervals, last"),
    "... seven scenarios put aside": ("SNIS", "intervals, held out"),
    '`snis(smooth="truncate")`': ("truncated IS", "all"),
    '`snis(smooth="psis")`': ("PSIS", "all"),
    '`select_gamma(rule="mse")`': ("mse", "all"),
    'Student\'s t (`method="delta"`)': ("delta", "all"),
}


def test_what_which_rule_says_of_intervals():
    rows = table((RESULTS / "accuracy_table.md").read_text())
    studied = {tuple(row[:2]): row[2:6] for row in rows if len(row) == 7}
    page = (ROOT / "docs/explanation/which_rule.md").read_text()
    covering, silent = page.split("which say nothing and count as covering", 1)
    covering = {row[0]: row[1:] for row in table(covering)}
    silent = {row[0]: row[1:] for row in table(silent) if len(row) == 5}
    for name, key in QUOTED.items():
        for said, nothing, exact in zip(covering[name], silent[name], studied[key], strict=True):
            coverage, length, *share = exact.split(", ")
            assert said == f"{coverage} at {length}", name
            assert [f"{nothing}%"] == (share or ["0%"]), name
    last = studied["SNIS", "intervals, last"][3].split(", ")[0]
    assert f"covered {last} below khat 0.7" in " ".join((ROOT / "README.md").read_text().split())


def test_what_which_rule_says_of_estimates():
    studied = table((RESULTS / "accuracy_table.md").read_text())
    groups = re.findall(r"([\w, ]+): worst", " | ".join(studied[0]))
    said = {row[0]: row[1:] for row in table((ROOT / "docs/explanation/which_rule.md").read_text())}
    for row in studied[2:12]:
        for at, group in ((0, "all"), (2, "mse, last")):
            place = 1 + 2 * [each.strip() for each in groups].index(group)
            assert said[row[0]][at : at + 2] == row[place : place + 2]


def test_what_is_said_of_honesty():
    text = (RESULTS / "honesty.md").read_text()
    cells: dict[str, list[list[str]]] = {}
    for name, *numbers in table(text):
        cells.setdefault(name, []).append(numbers)

    def said(text, *phrases):
        flat = " ".join(text.replace("`", "").split())
        for phrase in phrases:
            assert phrase in flat, phrase

    def percent(shares):
        return [float(share.rstrip("%")) for share in shares]

    smooth, with_a_middle, *_ = (max(percent(shares)) for shares in cells["the most"])
    (psis,), (auto,) = cells["PSIS"], cells['"auto"']
    (mse,) = cells["`mse`: its root over the true error"]
    page = (ROOT / "docs/explanation/which_rule.md").read_text()
    said(
        page,
        f"by mistake in {smooth:.1f} % of samples at most",
        f"in up to {with_a_middle:.1f} % (at n = 300",
        f'PSIS has up to {psis[1]} times the error of SNIS, "auto" at most {auto[1]}',
        f"root of mse is {mse[2]} times the true error in the median",
        f"5 % of cells are below {mse[1]}, and 5 % above {mse[3]}",
    )
    (few, many) = percent(cells["10%"][0])
    said(page, f"in {many:.0f} % of samples of 20 000 draws")
    assert few == 0.0
    said(isdiag.snis.__doc__, f'{auto[1]} times that of plain weights at worst, and with "psis" {psis[1]}')
    (alone,), (bias,) = cells["`std_error` over the true error"], cells["`bias` over the true one"]
    (sign,) = cells["share of samples whose `bias` has the true sign"]
    said(
        isdiag.select_gamma.__doc__,
        f"{bias[2]} of it (median over {bias[0]} cells",
        f"right sign in {100 * float(sign[-1]):.0f} % of samples",
        f"is {mse[2]} times the true root mean squared error (median over {mse[0]} cells",
        f"5 % are below {mse[1]}, 5 % above {mse[3]}",
        f"alone is {alone[2]} times (5 % below {alone[1]})",
    )
    (controlled,) = cells["`control_variate`: error over that of `snis`"]
    (smaller,) = re.findall(r"smaller error in (\d+)% of cells", text)
    said(
        isdiag.control_variate.__doc__,
        f"Over {controlled[0]} cells of the study its root mean squared error is {controlled[2]} times",
        f"smaller in {smaller} % of them, {controlled[3]} times at the 95 % quantile",
        f"quantile and {controlled[4]} times at most",
    )

    def of_sizes(name, which):  # n = 300, 1000, 4000
        return [f"{share:.0f}" for share in percent(cells[name][which][1:4])]

    poor, rejected = (of_sizes("1 in 100 is 30 times the others", i) for i in range(2))
    spread, wide = of_sizes("log-normal, s = 2", -1), of_sizes("log-normal, s = 3", 0)
    said(
        isdiag.finite_variance_test.__doc__,
        f"{spread[0]} to {spread[2]} % of samples of log-normal weights with s = 2",
        f"in {wide[0]} to {wide[2]} % with s = 3",
        f"in {rejected[0]} to {rejected[2]} % where 1 in 100",
        f"in {poor[0]}, {poor[1]} and {poor[2]} % of them",
    )


LEARNING = {
    "`adaptive()` with its controller": "adaptive",
    "gamma of answers, `GammaController()`": "gamma of answers",
    "TIS, of tokens": "TIS",
} | {name: name for name in ("CISPO", "IcePop", "TOPR", "f = 1")}


def test_what_is_said_of_learning():
    sections = re.split(r"^## ", (RESULTS / "rl_study.md").read_text(), flags=re.MULTILINE)[1:5]
    found = [{row[0]: row[1:3] for row in table(section)} for section in sections]
    rows = table((ROOT / "docs/howto/rl.md").read_text())
    said = {row[0]: row[1:] for row in rows if row[0] in LEARNING and len(row) == 5}
    assert set(said) == set(LEARNING)
    for name, method in LEARNING.items():
        for quoted, group in zip(said[name], found, strict=True):
            assert quoted.strip("*") == ", ".join(group[method]), name
    mean, least = found[-1]["adaptive"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"best mean, {mean} of the best other, with {least} at its worst" in readme
