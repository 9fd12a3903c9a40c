"""The command `isdiag`: reports on files of log-weights, and compiles ahead."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
import warnings

import numpy as np

import isdiag

NEEDS_RICH = "isdiag: the command line needs rich: pip install 'isdiag[cli]'"


def _k_max(text: str) -> float | None:
    return None if text == "auto" else float(text)


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))
    if not names:
        msg = "names no columns"
        raise argparse.ArgumentTypeError(msg)
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="isdiag",
        description="Can these importance weights be trusted, and if not, how far must they be tempered?",
    )
    parser.add_argument("--version", action="version", version=f"isdiag {isdiag.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options.add_argument(
        "--check", action="store_true", help="exit with 1 if any column cannot be trusted as it is"
    )
    options.add_argument(
        "--k-max",
        type=_k_max,
        default=0.7,
        metavar="K",
        help="largest khat allowed, or 'auto' for the one that n draws can cope with (default 0.7)",
    )
    options.add_argument(
        "--ess-min", type=float, default=0.3, metavar="R", help="smallest ESS/n (default 0.3)"
    )
    options.add_argument(
        "--gamma-max", type=float, default=1.0, metavar="G", help="largest gamma (default 1)"
    )
    options.add_argument(
        "--r-eff", type=float, default=1.0, metavar="E", help="relative efficiency (default 1)"
    )
    options.add_argument(
        "--top", type=_count, default=20, metavar="N", help="how many columns to list (default 20)"
    )
    options.add_argument(
        "--workers", type=int, default=1, metavar="N", help="threads, -1 for one a CPU (default 1)"
    )
    report = commands.add_parser(
        "report",
        parents=[options],
        help="report on files of log-weights",
        description="Report on files of log-weights: a vector, or draws x columns.",
    )
    report.add_argument(
        "files", nargs="+", metavar="FILE", help=".npy, .npz, .csv, .tsv or .txt, maybe .gz; - is stdin"
    )
    report.add_argument(
        "--columns",
        type=_columns,
        metavar="A,B",
        help="columns to report on, by name or number from 0 (default all but lp__, chain, draw ...)",
    )
    report.add_argument(
        "--h", metavar="COLUMN", help="a column that holds values, not log-weights: their mean is estimated"
    )
    report.add_argument("--transpose", action="store_true", help="each line of the file is a column")
    report.add_argument("--log", action="store_true", help="the files hold weights: take their logarithms")
    report.add_argument(
        "--negate", action="store_true", help="change the sign, as leave-one-out does with log-likelihoods"
    )
    demo = commands.add_parser(
        "demo",
        parents=[options],
        help="report on the data that come with isdiag",
        description="Report on leave-one-out log-ratios of two Bayesian models that come with isdiag.",
    )
    for command, rules in ((report, ["joint", "refit", "mse"]), (demo, ["joint", "refit"])):
        needs = "; mse needs --h" if "mse" in rules else ""
        command.add_argument("--rule", choices=rules, default="joint", help=f"how gamma is chosen{needs}")
    commands.add_parser(
        "warmup",
        help="compile everything ahead of its first use",
        description="Compile every kernel into the cache, as when an image is built; takes half a minute.",
    )
    return parser


def _warmup() -> int:
    from isdiag._warmup import warmup

    start = time.perf_counter()
    folder = warmup()
    if folder is None:
        print("isdiag: no folder to cache kernels in: set NUMBA_CACHE_DIR to one", file=sys.stderr)
        return 2
    print(f"kernels are in {folder} ({time.perf_counter() - start:.1f} s)")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; default those of the process.

    Returns
    -------
    int
        0 when the report was made, 1 with ``--check`` if a column cannot be trusted as it is, 2 for bad
        usage or an unreadable file.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "report" and arguments.rule == "mse" and arguments.h is None:
        parser.error("--rule mse needs --h COLUMN")
    if arguments.command == "warmup":
        return _warmup()
    try:
        from isdiag import report
        from isdiag.report import strict_json, table
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        print(NEEDS_RICH, file=sys.stderr)
        return 2

    errors: list[str] = []
    sources: list[report.Source] = []
    if arguments.command == "demo":
        sources = report.demo_sources()
    else:
        names = ("columns", "h", "transpose", "log", "negate")
        reading = report.Reading(**{name: getattr(arguments, name) for name in names})
        for path in arguments.files:
            try:
                sources += report.load(path, reading)
            except OSError as error:
                errors.append(f"{path}: {error.strerror or error}")
            except ValueError as error:
                errors.append(str(error))

    for source in sources:
        for note in source.notes:
            print(f"isdiag: {source.name}: {note}", file=sys.stderr)

    names = ("k_max", "ess_min", "gamma_max", "rule", "r_eff", "workers")
    options = {name: getattr(arguments, name) for name in names}
    try:
        # On a terminal only: compiling takes seconds, once.
        with table.waiting("diagnosing (the first run compiles)"), warnings.catch_warnings():
            # The report shows such rows by their status.
            warnings.simplefilter("ignore", isdiag.NonFiniteWarning)
            reports = [(source, source.diagnose(**options)) for source in sources]
    except ValueError as error:
        print(f"isdiag: {error}", file=sys.stderr)
        return 2

    try:
        print(strict_json.to_json(reports) if arguments.json else table.to_text(reports, arguments.top))
        sys.stdout.flush()
    except OSError as error:  # the reader went away, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"isdiag: {error}", file=sys.stderr)
        return 2
    for error in errors:
        print(f"isdiag: {error}", file=sys.stderr)
    if errors:
        return 2
    passed = all(np.all(diagnosis.ok) for _, diagnosis in reports)
    return 1 if arguments.check and not passed else 0
