"""A long fuzz of every function of the registry.

Stops at the first failure, with a reproduction; ``--keep-going`` counts failures by kind
instead, and prints the shortest reproduction of each.

    python tests/fuzz/run.py --executions 5000000 --seed 1
    python tests/fuzz/run.py --seed 1 --case 4711
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.cases import Wrong, case, check


def report(wrong, seed, number):
    print(
        f"\n{wrong.kind}: {str(wrong.detail)[:500]}\npython tests/fuzz/run.py --seed {seed} --case {number}"
    )
    print(repr(wrong.case)[:3000], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--executions", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--case", type=int, help="only that one, with its call")
    parser.add_argument("--keep-going", action="store_true")
    asked = parser.parse_args()
    numbers = range(asked.executions) if asked.case is None else [asked.case]
    done, kinds, shortest = Counter(), Counter(), {}
    start = time.monotonic()
    for number in numbers:
        tried, rng = case(asked.seed, number)
        if asked.case is not None:
            print(repr(tried)[:20000])
        done[tried.name] += 1
        try:
            check(tried, rng)
        except Wrong as wrong:
            kinds[wrong.kind] += 1
            length = len(repr(wrong.case))
            if length < shortest.get(wrong.kind, (float("inf"),))[0]:
                shortest[wrong.kind] = length, wrong, number
            if not asked.keep_going:
                break
        if time.monotonic() - start > asked.seconds:
            break
    for _, wrong, number in shortest.values():
        report(wrong, asked.seed, number)
    print()
    for name, count in done.most_common():
        print(f"{count:9d}  {name}")
    print(f"{done.total():9d}  executions in {time.monotonic() - start:.0f} s")
    for kind, count in kinds.most_common():
        print(f"{count:9d}  failures: {kind}")
    sys.exit(bool(kinds))


if __name__ == "__main__":
    main()
