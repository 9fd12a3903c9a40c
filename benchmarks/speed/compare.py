"""Which functions a commit made slower: two commits of this repository, side by side on this machine.

``python benchmarks/speed/compare.py A B [--quick] [--rounds N] [--only NAME ...]`` lays both out under build/
and lets a process of each take turns, so that whatever else the machine does hits both alike. It prints, of
each function and size, the least time of a call of either, and the ratio of the two with its spread over the
rounds. It ends with what is slower in B by more than the noise, and with exit status 1 if anything is.
Processor time is counted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from functions import CALLS

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent.parent
SIZES, QUICK_SIZES = (1000, 100_000, 1_000_000), (1000,)
ROUNDS, QUICK_ROUNDS = 15, 7
TURN = 0.02  # seconds, unless a call takes longer
# A ratio that differs from 1 by less is noise whatever the rounds say.
LEAST = 0.03

# What a process does that is asked for times: one line in, one line out.
SERVER = """
import json, sys, warnings
sys.path.insert(0, {folder!r})
warnings.simplefilter("ignore")
from functions import prepared, seconds_a_call
calls = {{}}
for line in sys.stdin:
    name, n, repeats = json.loads(line)
    try:
        if (name, n) not in calls:
            calls[name, n] = prepared(name, n)
            calls[name, n]()
        print(json.dumps(seconds_a_call(calls[name, n], repeats)), flush=True)
    except AttributeError:
        print("null", flush=True)
"""


class Outcome(NamedTuple):
    """Of a function on so many draws."""

    name: str
    n: int
    before: float  # least seconds a call
    after: float
    ratios: tuple[float, ...]  # of a round each, after over before

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def noise(self) -> float:
        """How far the median ratio may be from 1 by chance: three of its standard errors, by quartiles."""
        low, _, high = statistics.quantiles(self.ratios, n=4)
        return max(3.0 * 1.25 * (high - low) / 1.35 / len(self.ratios) ** 0.5, LEAST)

    @property
    def verdict(self) -> str:
        if abs(self.ratio - 1.0) <= self.noise:
            return ""
        return "slower" if self.ratio > 1.0 else "faster"


def laid_out(commit: str) -> Path:
    """A folder with the files of a commit, which stays: its kernels are then compiled once."""
    git = ["git", "-C", str(REPOSITORY)]
    named = [*git, "rev-parse", f"{commit}^{{commit}}"]
    name = subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    tree = REPOSITORY / "build" / "compare" / name
    if not tree.exists():
        archive = subprocess.run([*git, "archive", name], check=True, capture_output=True)  # noqa: S603
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="data")
    return tree


class Process:
    """One that has a commit's isdiag and times its functions when asked."""

    def __init__(self, tree: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SERVER.format(folder=str(FOLDER))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tree,
        )

    def seconds(self, name: str, n: int, repeats: int) -> float | None:
        """Seconds a call, None where the commit has no such function."""
        to, back = self.process.stdin, self.process.stdout
        if to is None or back is None:
            raise RuntimeError
        to.write(json.dumps([name, n, repeats]) + "\n")
        to.flush()
        return json.loads(back.readline())

    def close(self) -> None:
        self.process.communicate()


def compared(before: Any, after: Any, name: str, n: int, rounds: int) -> Outcome | None:
    """Times of a function by two processes that take turns; None where one has no such function."""
    found: list[list[float]] = [[], []]
    once = [each.seconds(name, n, 1) for each in (before, after)]
    if None in once:
        return None
    once = [each.seconds(name, n, 1) for each in (before, after)]
    repeats = max(int(TURN / max(*once, 1e-7)), 1)
    for first in range(rounds):
        order = (0, 1) if first % 2 == 0 else (1, 0)
        for which in order:
            found[which].append((before, after)[which].seconds(name, n, repeats))
    ratios = tuple(b / a for a, b in zip(*found, strict=True))
    return Outcome(name, n, min(found[0]), min(found[1]), ratios)


def line_of(outcome: Outcome) -> str:
    spread = f"{min(outcome.ratios):.2f} - {max(outcome.ratios):.2f}"
    times = f"{outcome.before * 1e6:10.1f} {outcome.after * 1e6:10.1f}"
    line = f"{outcome.name:28} {outcome.n:>8} {times}   {outcome.ratio:.3f}  ({spread})  {outcome.verdict}"
    return line.rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="another")
    parser.add_argument("--quick", action="store_true", help="1000 draws and fewer rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="*", default=tuple(CALLS), help="names of functions")
    asked = parser.parse_args()
    sizes = QUICK_SIZES if asked.quick else SIZES
    rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    slower: list[Outcome] = []
    before, after = (Process(laid_out(commit)) for commit in (asked.before, asked.after))
    print(f"{'':28} {'draws':>8} {'us before':>10} {'after':>10}   ratio  (of rounds)")
    for name in asked.only:
        for n in sizes:
            outcome = compared(before, after, name, n, rounds)
            if outcome is not None:
                print(line_of(outcome), flush=True)
                slower += [outcome] if outcome.verdict == "slower" else []
    before.close()
    after.close()
    said = ", ".join(f"{each.name} of {each.n} by {each.ratio - 1.0:.0%}" for each in slower)
    print(f"slower by more than the noise: {said or 'nothing'}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
