"""The command `isdiag`: reports on files of log-weights, and compiles ahead."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
import warnings
from _thread import interrupt_main
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from threading import Timer
from typing import Any, NoReturn, TypeVar

import numpy as np

import isdiag
from isdiag import report

_Read = TypeVar("_Read")

NEEDS_RICH = "tables need rich: pip install 'isdiag[cli]', or ask for --json"
NEEDS_MATPLOTLIB = "--html needs matplotlib: pip install 'isdiag[plot]'"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(report.printable(message))  # it quotes what was typed


def _positive(text: str) -> float:
    if not float(text) > 0:
        msg = f"must be above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        msg = f"must be between 0 and 1, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def _k_max(text: str) -> float | None:
    return None if text == "auto" else _positive(text)


def _count(text: str) -> int:
    if int(text) < 1:
        msg = f"must be 1 or more, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _threads(text: str) -> int:
    return -1 if text == "-1" else _count(text)


def _number_or_file(text: str) -> float | str:
    try:
        float(text)
    except ValueError:
        return text
    return _positive(text)


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))
    if not names:
        msg = "names no columns"
        raise argparse.ArgumentTypeError(msg)
    return names


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="isdiag",
        description="Can estimates with these importance weights be believed? How far can a step trust them?",
    )
    parser.add_argument("--version", action="version", version=f"isdiag {isdiag.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    options = _Parser(add_help=False)
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options.add_argument("--html", metavar="FILE", help="write a page with pictures, in the table's place")
    options.add_argument(
        "--check", action="store_true", help="exit with 1 if an estimate with any column cannot be believed"
    )
    options.add_argument(
        "--k-max",
        type=_k_max,
        metavar="K",
        help="largest khat allowed, or 'auto' for the one that n draws can cope with (default auto)",
    )
    options.add_argument(
        "--ess-min", type=_share, default=0.3, metavar="R", help="smallest ESS/n (default 0.3)"
    )
    options.add_argument(
        "--gamma-max", type=_positive, default=1.0, metavar="G", help="largest gamma (default 1)"
    )
    options.add_argument(
        "--top", type=_count, default=20, metavar="N", help="how many columns to list (default 20)"
    )
    options.add_argument(
        "--workers", type=_threads, default=1, metavar="N", help="threads, -1 for one a CPU (default 1)"
    )
    files = commands.add_parser(
        "report",
        parents=[options],
        help="report on files of log-weights",
        description="Report on files of log-weights: a vector, or draws x columns.",
    )
    files.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=".npy, .npz, .csv, .tsv or .txt, maybe .gz, or .parquet of any size; - is stdin; the files of a "
        "glob in quotes are read as one",
    )
    files.add_argument(
        "--columns",
        type=_columns,
        metavar="A,B",
        help="columns to report on, by name or number from 0 (default all but lp__, chain, draw ...)",
    )
    files.add_argument(
        "--h", metavar="COLUMN", help="a column that holds values, not log-weights: their mean is estimated"
    )
    files.add_argument(
        "--by", metavar="COLUMN", help="a column of parquet files, each value of which is a group"
    )
    files.add_argument("--transpose", action="store_true", help="each line of the file is a column")
    files.add_argument("--log", action="store_true", help="the files hold weights: take their logarithms")
    files.add_argument(
        "--negate", action="store_true", help="change the sign, as leave-one-out does with log-likelihoods"
    )
    files.add_argument(
        "--r-eff",
        type=_number_or_file,
        metavar="E",
        help="relative efficiency: a number, or a file with one for each column (default the data's, or 1)",
    )
    demo = commands.add_parser(
        "demo",
        parents=[options],
        help="report on the data that come with isdiag",
        description="Report on leave-one-out log-ratios of two Bayesian models that come with isdiag.",
    )
    demo.add_argument(
        "--r-eff", type=_positive, metavar="E", help="relative efficiency (default that of the data)"
    )
    for command, rules in ((files, ["joint", "refit", "mse"]), (demo, ["joint", "refit"])):
        needs = "; mse needs --h" if "mse" in rules else ""
        command.add_argument("--rule", choices=rules, default="joint", help=f"how gamma is chosen{needs}")
    commands.add_parser(
        "warmup",
        help="compile everything ahead of its first use",
        description="Compile every kernel into the cache, as when an image is built; takes half a minute.",
    )
    return parser


def _say(text: str) -> None:
    """One line on stderr, if it is open."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]  # closed by the shell: 2>&-
        with suppress(OSError):
            print(f"isdiag: {report.printable(text)}", file=sys.stderr)


def _write(text: str, end: str = "\n") -> bool:
    """Write to stdout; whether that went well."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # closed by the shell: >&-
        _say("standard output is closed")
        return False
    try:
        print(text, end=end)
        sys.stdout.flush()
    except OSError as error:  # the reader went away, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _say(str(error))
        return False
    return True


def _warmup() -> int:
    from isdiag._warmup import warmup

    start = time.perf_counter()
    folder = warmup()
    if folder is None:
        _say("no folder to cache kernels in: set NUMBA_CACHE_DIR to one")
        return 2
    return 0 if _write(f"kernels are in {folder} ({time.perf_counter() - start:.1f} s)") else 2


def _load_any(
    path: str, reading: report.Reading, by: str | None, errors: list[str]
) -> Sequence[report.Source | report.Merged]:
    if by is None and not report.is_merged(path):
        return _load(path, reading, errors)
    with _rows_read() as show:
        return _heard(path, errors, lambda: [report.load_merged(path, reading, by, show)])


def _load(path: str, reading: report.Reading, errors: list[str]) -> list[report.Source]:
    return _heard(path, errors, lambda: report.load(path, reading))


def _heard(path: str, errors: list[str], read: Callable[[], list[_Read]]) -> list[_Read]:
    """What was read; nothing, and an error to tell, where that failed."""
    try:
        return read()
    except OSError as error:
        errors.append(f"{path}: {error.strerror or error}")
    except ValueError as error:
        errors.append(str(error))
    return []


def _save(path: str, text: str, errors: list[str]) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        errors.append(f"{path}: {error.strerror or error}")


def _rows_read() -> AbstractContextManager[Any]:
    """A count of rows on a terminal, as files that are read in parts may be long."""
    try:
        from isdiag.report.table import counting
    except ModuleNotFoundError:
        return nullcontext()
    return counting("reading")


def _waiting() -> AbstractContextManager[Any]:
    """A sign of life on a terminal: compiling takes seconds, once."""
    try:
        from isdiag.report.table import waiting
    except ModuleNotFoundError:
        return nullcontext()
    return waiting("diagnosing (the first run compiles)")


def _report(arguments: argparse.Namespace) -> int:
    page: Any = None
    if arguments.html is not None:
        try:
            from isdiag.report import page
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            _say(NEEDS_MATPLOTLIB)
            return 2
    if arguments.json:
        show = report.to_json
    elif page is not None:
        show = None
    else:
        try:
            from isdiag.report.table import to_text
        except ModuleNotFoundError as error:
            if error.name != "rich":
                raise
            _say(NEEDS_RICH)
            return 2
        show = partial(to_text, top=arguments.top)

    errors: list[str] = []
    sources: list[report.Source | report.Merged] = []
    names = ["k_max", "ess_min", "gamma_max", "rule", "r_eff", "workers"]
    options = {name: getattr(arguments, name) for name in names}
    if arguments.command == "demo":
        sources += report.demo_sources()
    else:
        if isinstance(arguments.r_eff, str):
            efficiencies = _load(arguments.r_eff, report.Reading(), errors)
            if len(efficiencies) != 1:
                _say(errors[0] if errors else f"{arguments.r_eff}: holds several arrays")
                return 2
            options["r_eff"] = efficiencies[0]
        names = ("columns", "h", "transpose", "log", "negate")
        reading = report.Reading(**{name: getattr(arguments, name) for name in names})
        for path in arguments.files:
            sources += _load_any(path, reading, arguments.by, errors)
    for source in sources:
        for note in source.notes:
            _say(f"{source.name}: {note}")

    reports: list[tuple[report.Source | report.Merged, isdiag.Diagnosis]] = []
    with _waiting(), warnings.catch_warnings():
        # The report shows such rows by their status.
        warnings.simplefilter("ignore", isdiag.NonFiniteWarning)
        for source in sources:
            try:
                reports.append((source, source.diagnose(**options)))
            except ValueError as error:
                errors.append(str(error))

        if page is not None and reports:
            _save(str(arguments.html), page.to_html(reports, options, arguments.top), errors)
    written = _write(show(reports)) if show is not None and (reports or arguments.json) else True
    for error in errors:
        _say(error)
    if errors or not written:
        return 2
    passed = all(np.all(diagnosis.ok) for _, diagnosis in reports)
    return 1 if arguments.check and not passed else 0


def _run(argv: list[str] | None) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.command == "report" and arguments.rule == "mse" and arguments.h is None:
            parser.error("--rule mse needs --h COLUMN")
    except SystemExit:
        if sys.stdout is not None and not _write("", end=""):  # pyright: ignore[reportUnnecessaryComparison]
            return 2
        raise
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _warmup() if arguments.command == "warmup" else _report(arguments)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Send Ctrl-C once more where it is lost: LLVM calls back while it compiles, and drops exceptions."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        Timer(0.01, interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


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
        usage or an unreadable file, 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        return _run(argv)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    finally:
        sys.unraisablehook = hook
