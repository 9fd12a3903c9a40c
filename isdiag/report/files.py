"""Reading log-weights from files."""

from __future__ import annotations

import csv
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from isdiag.report.delimited import read_table
from isdiag.report.source import Source, source_of


def _load_csv(path: Path) -> Source:
    with path.open(encoding="utf-8-sig") as file:
        try:
            table, names = read_table(file)
        except (ValueError, csv.Error) as error:
            msg = f"{path}: {error}"
            if isinstance(error, (UnicodeDecodeError, csv.Error)):
                msg = f"{path}: not a text file of numbers ({error})"
            raise ValueError(msg) from None
    return source_of(str(path), table[:, 0] if table.shape[1] == 1 else table, names)


def _load_npz(path: Path) -> list[Source]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    names = arrays.pop("columns", None)
    columns = None if names is None else [str(name) for name in names.ravel()]
    if not arrays:
        msg = f"{path}: holds no arrays"
        raise ValueError(msg)
    if len(arrays) == 1:
        return [source_of(str(path), array, columns) for array in arrays.values()]
    return [source_of(f"{path}:{key}", array, columns) for key, array in arrays.items()]


def load(path: str | Path) -> list[Source]:
    """Read log-weights from a .npy, .npz or .csv file.

    Parameters
    ----------
    path : str or Path
        One vector, or draws x columns. A .csv may start with a line of names; lines that start with #
        are skipped. In a .npz each array is a source; one called ``columns`` holds names.

    Returns
    -------
    list of Source

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it does not hold log-weights; the message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        msg = f"{path}: expected a .npy, .npz or .csv file"
        raise ValueError(msg)
    if suffix == ".csv":
        return [_load_csv(path)]
    try:
        if suffix == ".npz":
            return _load_npz(path)
        return [source_of(str(path), np.load(path, allow_pickle=False))]
    except OSError:
        raise
    except Exception as error:  # NumPy raises many kinds on a damaged file
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise ValueError(text) from None


def demo_sources() -> list[Source]:
    """The shipped data: leave-one-out log-ratios of two Bayesian models."""
    titles = {
        "centered_eight": "Eight schools, centred (ArviZ's example; 2000 draws x 8 schools)",
        "stack_loss": "Stack loss, quadratic regression (exact posterior; 2000 draws x 21 days)",
    }
    sources: list[Source] = []
    for name, title in titles.items():
        with as_file(files("isdiag") / "data" / f"{name}.npz") as path:
            loaded = _load_npz(path)[0]
        sources.append(Source(title, loaded.log_w, loaded.columns))
    return sources
