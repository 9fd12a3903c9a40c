"""Numbers that README and docs quote are those of docs/results."""

import re
from pathlib import Path

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
