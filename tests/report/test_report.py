"""The command line: what it reads, prints and returns."""

import bz2
import ctypes
import gzip
import io
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser

import make_demo_data  # of tools/
import numpy as np
import pytest

import isdiag
from isdiag import report
from isdiag.cli import main
from tests.helpers import optional


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def good(rng):
    return 0.3 * rng.normal(size=200)


def columns(output):
    (source,) = json.loads(output)
    return source["columns"]


def test_demo(run):
    code, out, err = run("demo")
    assert (code, err) == (0, "")
    assert "8 of 8 columns can be believed" in out  # as az.loo says on the same draws
    assert "18 of 21 columns can be believed" in out
    leave_one_out, step = out.split("A training step")
    assert "emper" not in leave_one_out
    assert "64 updates old: Temper the weights" in step
    assert out.index("day 2 ") < out.index("day 17 ") < out.index("day 13 ")
    assert run("demo", "--check")[0] == 1


def test_advice_follows_the_refit(run, tmp_path):
    # Of exact Pareto weights of index 1.2 gamma = k_max / khat leaves a re-fitted khat above k_max.
    log_w = 1.2 * np.random.default_rng(4).exponential(size=1000)
    np.save(tmp_path / "a.npy", log_w)
    options = ["--json", "--ess-min", "0"]
    _, out, _ = run("report", tmp_path / "a.npy", *options)
    (column,) = columns(out)
    assert column["khat_tempered"] > column["k_max"]
    assert "rule refit goes further" in column["step_advice"]
    _, out, _ = run("report", tmp_path / "a.npy", *options, "--rule", "refit")
    (column,) = columns(out)
    assert column["khat_tempered"] <= column["k_max"]
    assert "goes further" not in column["step_advice"]


def test_demo_as_json_is_the_api(run):
    _, out, _ = run("demo", "--json")
    schools, days, ages = json.loads(out)
    source = report.demo_sources()[1]
    chosen = isdiag.select_gamma(source.log_w, axis=0, k_max=None)
    assert [c["column"] for c in days["columns"]] == [f"day {i}" for i in range(1, 22)]
    assert [c["gamma"] for c in days["columns"]] == chosen.gamma.tolist()
    assert [c["khat"] for c in days["columns"]] == chosen.khat.tolist()
    assert sum(c["khat"] > 0.7 for c in days["columns"]) >= 3
    assert len(schools["columns"]) == 8
    assert schools["ok"]
    assert ages["columns"][0]["column"] == "1 update old"


def test_vector_in_every_format(run, tmp_path, good):
    np.save(tmp_path / "a.npy", good)
    np.savez(tmp_path / "a.npz", w=good)
    np.savetxt(tmp_path / "a.csv", good, fmt="%.17g")
    (tmp_path / "b.csv").write_text("# made by hand\nlog_w\n" + "\n".join(map(repr, good.tolist())))
    expected = isdiag.diagnose(good).records()[0]
    for name in ("a.npy", "a.npz", "a.csv", "b.csv"):
        code, out, _ = run("report", tmp_path / name, "--json")
        assert code == 0
        (record,) = columns(out)
        assert record.pop("column") is None
        assert record == expected
        code, out, _ = run("report", tmp_path / name)
        assert code == 0
        assert "for an estimate  sound" in out


def test_columns_in_every_format(run, tmp_path, good):
    table = np.column_stack([good, 8 * good])
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "a.npz", w=table, columns=["easy", "hard"])
    np.savetxt(tmp_path / "a.csv", table, fmt="%.17g", delimiter=",", header="easy,hard", comments="")
    for name, names in (("a.npy", ["0", "1"]), ("a.npz", ["easy", "hard"]), ("a.csv", ["easy", "hard"])):
        code, out, _ = run("report", tmp_path / name, "--json", "--check")
        assert code == 1
        assert [c["column"] for c in columns(out)] == names
        _, out, _ = run("report", tmp_path / name)
        assert out.index(f"\n{names[1]} ") < out.index(f"\n{names[0]} ")  # the worst first


def table_as(name, table, folder):
    """A file of that name with that table in it."""
    path, text, binary = folder / name, io.StringIO(), io.BytesIO()
    np.savetxt(text, table, fmt="%.17g", delimiter="\t" if ".tsv" in name else "," if ".csv" in name else " ")
    np.savez(binary, w=table) if ".npz" in name else np.save(binary, table)
    content = text.getvalue().encode() if ".np" not in name else binary.getvalue()
    compress = {".gz": gzip, ".bz2": bz2, ".xz": lzma}.get(path.suffix)
    path.write_bytes(compress.compress(content) if compress else content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.tsv",
        "a.txt",
        "A.CSV",
        "a.csv.gz",
        "a.txt.bz2",
        "a.tsv.xz",
        "a.npy.gz",
        "a.npz.xz",
        "a",
        "a.b/a",
        "a.gz",
    ],
)
def test_kinds_of_files(run, tmp_path, good, name):
    (tmp_path / "a.b").mkdir()
    table = np.column_stack([good, 2 * good])
    _, out, err = run("report", table_as(name, table, tmp_path), "--json")
    assert err == ""
    assert [c["khat"] for c in columns(out)] == isdiag.pareto_khat(table, axis=0).tolist()


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.npz"])
def test_standard_input(run, tmp_path, good, monkeypatch, name):
    content = table_as(name, good, tmp_path).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    _, out, err = run("report", "-", "--json")
    assert err == ""
    (source,) = json.loads(out)
    assert source["source"] == "<stdin>"
    assert source["columns"][0]["khat"] == isdiag.pareto_khat(good)


def test_pipes_have_no_name_and_no_way_back(tmp_path, good):
    for name in ("a.csv", "a.npy"):
        path = table_as(name, good, tmp_path)
        command = f"{sys.executable} -m isdiag report <(cat {path}) --json"
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert columns(result.stdout)[0]["khat"] == isdiag.pareto_khat(good)


def test_standard_input_may_be_closed(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = run("report", "-")
    assert (code, err) == (2, "isdiag: <stdin>: is closed\n")


def test_several_arrays_of_a_file(run, tmp_path, good):
    np.savez(tmp_path / "a.npz", first=good, second=2 * good)
    _, out, _ = run("report", tmp_path / "a.npz", "--json")
    assert [source["source"].rsplit(":")[-1] for source in json.loads(out)] == ["first", "second"]


def test_options_reach_the_api(run, tmp_path, rng):
    log_w = 1.1 * rng.exponential(size=500)
    np.save(tmp_path / "a.npy", log_w)
    options = ["--k-max", "auto", "--ess-min", "0.01", "--gamma-max", "0.9", "--rule", "refit"]
    _, out, _ = run("report", tmp_path / "a.npy", "--json", *options)
    chosen = isdiag.select_gamma(log_w, k_max=None, ess_min=0.01, gamma_max=0.9, rule="refit")
    assert columns(out)[0]["gamma"] == chosen.gamma


def test_top(run, tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.normal(scale=3, size=(100, 30)))
    _, out, _ = run("report", tmp_path / "a.npy", "--top", 4)
    assert "... and 26 more" in out


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_columns_are_reported_not_fatal(run, tmp_path, good, bad):
    np.save(tmp_path / "a.npy", np.column_stack([good, np.full(200, bad)]))
    code, out, err = run("report", tmp_path / "a.npy", "--check")
    assert (code, err) == (1, "")
    assert "unknown" in out
    assert "No draw has positive weight" in out or "The row holds NaN or +inf" in out
    _, out, _ = run("report", tmp_path / "a.npy", "--json")
    easy, broken = columns(out)
    assert easy["ok"]
    assert broken["khat"] == "NaN"
    assert np.isnan(float(broken["khat"]))


def test_json_is_strict(run, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((50, 1)))
    _, out, _ = run("report", tmp_path / "a.npy", "--json")

    def refuse(token):
        raise AssertionError(token)

    (source,) = json.loads(out, parse_constant=refuse)
    assert float(source["columns"][0]["khat"]) == -np.inf


def test_one_row_is_a_vector(run, tmp_path, good):
    np.save(tmp_path / "a.npy", good[None, :])
    (tmp_path / "a.csv").write_text(",".join(map(repr, good.tolist())))
    for name in ("a.npy", "a.csv"):
        _, out, _ = run("report", tmp_path / name, "--json")
        (record,) = columns(out)
        assert record["n"] == good.size


def test_csv_dialects(run, tmp_path, good):
    body = [f"{v!r},{2 * v!r}" for v in good.tolist()]
    expected = None
    for text in (
        "a,b\n" + "\n".join(body),
        '\ufeff"a" , "b"\r\n' + "\r\n".join(body) + "\r\n",
        "# by hand\n\na,b\n  \n , \n" + "\n\n".join(body),
        "a,b\n" + "  # half\n".join(body),
        "a,b\n" + "\n".join(f'"{x}" , {y}' for x, y in (line.split(",") for line in body)),
        "\n".join(["a,b", *body]).replace(",", "\t"),
        "\n".join(['"a" "b"', *body]).replace(",", "   "),
    ):
        (tmp_path / "a.csv").write_text(text, newline="")
        code, out, err = run("report", tmp_path / "a.csv", "--json")
        assert (code, err) == (0, "")
        expected = expected or out
        assert out == expected


def test_a_name_may_hold_marks(run, tmp_path, good):
    body = "\n".join(f"{v},{2 * v}" for v in good.tolist())
    (tmp_path / "a.csv").write_text('obs #1,"b,c;d"\n' + body)
    _, out, _ = run("report", tmp_path / "a.csv", "--json")
    assert [column["column"] for column in columns(out)] == ["obs #1", "b,c;d"]


def test_numbers_as_names(run, tmp_path, rng):
    table = rng.normal(size=(200, 3))
    body = "\n".join(",".join(map(repr, row)) for row in table.tolist())
    (tmp_path / "a.csv").write_text("0,1,2\n" + body)  # as pandas' to_csv(index=False) has it
    _, out, err = run("report", tmp_path / "a.csv", "--json")
    assert [c["n"] for c in columns(out)] == [200] * 3
    assert [c["ess"] for c in columns(out)] == isdiag.ess(table, axis=0).tolist()
    assert err == f"isdiag: {tmp_path / 'a.csv'}: the first line, 0 to 2, is taken as names of columns\n"


@pytest.mark.parametrize("first", ["0", "0,1,3", "1,2,3", "0.0,1.0,2.0"])
def test_a_first_draw_is_no_names(run, tmp_path, first):
    text = first + ("\n" + first) * 49
    (tmp_path / "a.csv").write_text(text)
    _, out, err = run("report", tmp_path / "a.csv", "--json")
    assert (columns(out)[0]["n"], err) == (50, "")
    (tmp_path / "a.csv").write_text("0,1,2")
    _, out, err = run("report", tmp_path / "a.csv", "--json")
    assert (columns(out)[0]["n"], err) == (3, "")


STAN = ["lp__", "divergent__", ".chain", "Iteration", "draw", "chain", "a", "drawn", "b"]


@pytest.fixture
def stan(tmp_path, rng):
    """A file as Stan and its readers write it: path and table."""
    table = rng.normal(size=(100, len(STAN)))
    lines = [",".join(map(repr, row)) for row in table.tolist()]
    (tmp_path / "stan.csv").write_text("\n".join(["# model = m", ",".join(STAN), "# Adaptation", *lines]))
    return tmp_path / "stan.csv", table


def test_bookkeeping_of_samplers_is_left_out(run, stan):
    path, table = stan
    _, out, err = run("report", path, "--json")
    assert [c["column"] for c in columns(out)] == ["a", "drawn", "b"]
    assert [c["khat"] for c in columns(out)] == isdiag.pareto_khat(table[:, 6:], axis=0).tolist()
    left_out = "lp__, divergent__, .chain, Iteration, draw, chain"
    assert err == f"isdiag: {path}: left out: {left_out} (--columns takes any)\n"
    path.write_text("lp__,draw\n1,2\n")
    code, _, err = run("report", path)
    assert code == 2
    assert f"{path}: no column of log-weights among lp__, draw" in err


def test_columns_by_name_and_number(run, stan):
    path, table = stan
    _, out, err = run("report", path, "--json", "--columns", "b , lp__,6")
    assert err == ""
    assert [c["column"] for c in columns(out)] == ["b", "lp__", "a"]
    assert [c["ess"] for c in columns(out)] == isdiag.ess(table[:, [8, 0, 6]], axis=0).tolist()
    path.write_text('"x,y",z\n' + "1,2\n" * 50)
    _, out, _ = run("report", path, "--json", "--columns", '"x,y"')
    assert [c["column"] for c in columns(out)] == ["x,y"]
    for wanted in ("c", "9", "-1"):
        code, _, err = run("report", path, f"--columns={wanted}")
        assert code == 2
        assert f"{path}: no column {wanted!r} among x,y, z" in err


@pytest.mark.parametrize("name", ["a.csv", "a.npy"])
def test_a_table_on_its_side(run, tmp_path, rng, name):
    table = rng.normal(size=(4, 200))
    path = table_as(name, table, tmp_path)
    _, out, err = run("report", path, "--json")
    assert len(columns(out)) == 200
    hint = "200 columns of 4 draws: if each line is a column, pass --transpose"
    assert err == f"isdiag: {path}: {hint}\n"
    _, out, err = run("report", path, "--json", "--transpose")
    assert [c["khat"] for c in columns(out)] == isdiag.pareto_khat(table, axis=1).tolist()
    assert err == ""


def test_transposed_names(run, tmp_path, rng):
    table = rng.normal(size=(2, 100))
    np.savez(tmp_path / "a.npz", w=table, columns=["a", "b"])  # they name the lines
    _, out, _ = run("report", tmp_path / "a.npz", "--json", "--transpose")
    assert [c["column"] for c in columns(out)] == ["a", "b"]
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")  # they name what are draws now
    _, out, _ = run("report", tmp_path / "a.csv", "--json", "--transpose")
    assert [c["column"] for c in columns(out)] == ["0", "1"]


def test_negate(run, tmp_path, rng):
    log_lik = rng.integers(-9, 0, size=(200, 2))
    for name, table in (("a.npy", log_lik), ("b.npy", (-log_lik).astype(np.uint8))):
        np.save(tmp_path / name, table)
    for name, sign in (("a.npy", -1), ("b.npy", 1)):
        _, out, _ = run("report", tmp_path / name, "--json", "--negate")
        expected = isdiag.ess(sign * log_lik.astype(float), axis=0)
        assert [c["ess"] for c in columns(out)] == expected.tolist()


def test_log_likelihoods_are_noticed(run, tmp_path):
    (tmp_path / "a.csv").write_text("a,log_lik.1\n" + "1,2\n" * 40)
    _, _, err = run("report", tmp_path / "a.csv")
    assert err.startswith(f"isdiag: {tmp_path / 'a.csv'}: log-likelihoods by their names")
    assert run("report", tmp_path / "a.csv", "--negate")[2] == ""


def test_weights_are_noticed(run, tmp_path, rng):
    w = rng.exponential(size=(300, 2)) ** 2
    w[0] = 0
    said = "these look like weights, not log-weights"
    path = tmp_path / "a.csv"
    for table, noticed in (
        (w / w.sum(0), f"{said}: --log"),
        (np.round(w / w.sum(0), 6), f"{said}: --log"),
        (w / [1, w.sum(0)[1]], f"{said} (1): --log"),
        (w, None),
        (np.log(w[1:] / w.sum(0)), None),
        (2 * w / w.sum(0), None),
    ):
        np.savetxt(path, table, delimiter=",")
        _, _, err = run("report", path)
        assert (noticed is None and err == "") or f"{path}: {noticed}" in err
    np.savetxt(path, w, delimiter=",", fmt="%.17g")
    _, out, err = run("report", path, "--json", "--log")
    with np.errstate(divide="ignore"):
        expected = isdiag.ess(np.log(w), axis=0)
    assert err == ""
    assert [c["ess"] for c in columns(out)] == expected.tolist()
    np.savetxt(path, -w, delimiter=",")
    code, _, err = run("report", path, "--log")
    assert code == 2
    assert f"{path}: holds negative values" in err


def test_values_in_a_column(run, tmp_path, rng):
    log_w, h = rng.normal(size=(2, 300, 2))
    h = h[:, 0]
    np.savetxt(
        tmp_path / "a.csv", np.column_stack([log_w[:, 0], h, log_w[:, 1]]), header="a,h,b", delimiter=",",
        comments="", fmt="%.17g",
    )  # fmt: skip
    np.savez(tmp_path / "a.npz", w=log_w, h=h, columns=["a", "b"])
    spread = np.column_stack([h, h])
    for name in ("a.csv", "a.npz"):
        for rule in ("joint", "mse"):
            _, out, err = run("report", tmp_path / name, "--json", "--h", "h", "--rule", rule)
            expected = isdiag.diagnose(log_w, spread, axis=0, rule=rule)
            assert err == ""
            assert [c["column"] for c in columns(out)] == ["a", "b"]
            assert [c["gamma"] for c in columns(out)] == expected.gamma.tolist()
            assert [c["estimate"] for c in columns(out)] == expected.estimate.estimate.tolist()
        assert [c["least_error_estimate"] for c in columns(out)] == expected.selection.estimate.tolist()
        _, out, _ = run("report", tmp_path / name, "--h", "h", "--rule", "mse")
        assert f"{expected.estimate.estimate[0]:.4g}" in out
        assert f"{expected.selection.estimate[1]:.4g}" in out
    _, out, _ = run("report", tmp_path / "a.csv", "--json", "--h", "1", "--columns", "b,h", "--negate")
    (record,) = columns(out)
    assert record["estimate"] == isdiag.snis(-log_w[:, 1], h).estimate


def test_values_that_cannot_be(run, tmp_path, rng):
    path = tmp_path / "a.npz"
    code, _, err = run("report", path, "--rule", "mse")
    assert code == 2
    assert "--rule mse needs --h" in err
    for h, said in ((rng.normal(size=99), "shape (99,)"), (np.array(["x"] * 100), "h must hold a number")):
        np.savez(path, w=rng.normal(size=(100, 2)), h=h)
        code, _, err = run("report", path, "--h", "h")
        assert code == 2
        assert f"{path}: " in err
        assert said in err
    np.save(tmp_path / "a.npy", rng.normal(size=100))
    for name, said in (("h", "no column 'h' among 0"), ("0", "no column of log-weights among 0")):
        code, _, err = run("report", tmp_path / "a.npy", "--h", name)
        assert code == 2
        assert f"{tmp_path / 'a.npy'}: {said}" in err


@pytest.fixture
def efficiencies(tmp_path, rng):
    """A table of three columns, efficiencies of them, and the khats that they lead to."""
    table = rng.normal(size=(400, 3))
    lines = "\n".join(",".join(map(repr, row)) for row in table.tolist())
    (tmp_path / "w.csv").write_text("a,lp__,b\n" + lines)
    r_eff = np.array([0.3, 0.9])
    return r_eff, isdiag.pareto_khat(table[:, [0, 2]], axis=0, r_eff=r_eff).tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.csv", "0.3\n0.9\n"), ("r.csv", "0.3,0.9"), ("r.csv", "b,a,lp__\n0.9,0.3,2\n"), ("r.txt", "0.3 0.9")],
)
def test_an_efficiency_for_each_column(run, tmp_path, efficiencies, name, content):
    (tmp_path / name).write_text(content)
    _, out, _ = run("report", tmp_path / "w.csv", "--json", "--r-eff", tmp_path / name)
    assert [c["khat"] for c in columns(out)] == efficiencies[1]


def test_efficiency_of_a_vector(run, tmp_path, good):
    np.save(tmp_path / "w.npy", good)
    np.save(tmp_path / "r.npy", [0.2])
    for given in (0.2, tmp_path / "r.npy"):
        _, out, _ = run("report", tmp_path / "w.npy", "--json", "--r-eff", given)
        assert columns(out)[0]["khat"] == isdiag.pareto_khat(good, r_eff=0.2)


def test_efficiencies_that_do_not_match(run, tmp_path, efficiencies, good):
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "r.npy", [0.5])
    code, out, err = run("report", tmp_path / "w.csv", tmp_path / "good.npy", "--r-eff", tmp_path / "r.npy")
    assert code == 2
    assert "for an estimate  sound" in out  # the file that matches is reported all the same
    what = f"2 column(s) to report on, but 1 value(s) of r_eff in {tmp_path / 'r.npy'}"
    assert f"isdiag: {tmp_path / 'w.csv'}: {what}\n" in err
    np.savez(tmp_path / "r.npz", a=[0.5], b=[0.5])
    for name, said in (("none.csv", "No such file"), ("r.npz", "several arrays")):
        code, out, err = run("report", tmp_path / "w.csv", "--r-eff", tmp_path / name)
        assert (code, out) == (2, "")
        assert f"{tmp_path / name}: " in err
        assert said in err


def test_a_file_that_cannot_be_diagnosed_is_named(run, tmp_path, efficiencies, good):
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "r.npy", [0.5, -1.0])
    code, out, err = run("report", tmp_path / "w.csv", tmp_path / "good.npy", "--r-eff", tmp_path / "r.npy")
    assert (code, out) == (2, "")
    assert err.count(f"isdiag: {tmp_path / 'w.csv'}: r_eff") == 1
    assert err.count("\n") == 3  # a note for lp__, and a line for each file


def test_decimal_commas_without_names(run, tmp_path):
    (tmp_path / "a.csv").write_text("-1,52\n0,31\n" * 20)
    _, _, err = run("report", tmp_path / "a.csv")
    assert f"{tmp_path / 'a.csv'}: whole numbers" in err
    assert "decimal commas" in err
    for text in ("-1,52\n0,-31\n", "1,2\n", "1.5,20\n", "1,20,30\n"):
        (tmp_path / "a.csv").write_text(text * 20)
        assert run("report", tmp_path / "a.csv")[2] == ""


def test_names_are_shown_as_they_are(run, tmp_path, good):
    names = ["[bold]x[/bold]", "b\\", "bell\a", "a very long name of a column " * 4]
    np.savez(tmp_path / "[red].npz", w=np.column_stack([good] * 4), columns=names)
    _, out, _ = run("report", tmp_path / "[red].npz")
    assert "[red].npz" in out
    assert "[bold]x[/bold] " in out
    assert "b\\ " in out
    assert "bell? " in out
    assert "\a" not in out


@pytest.mark.parametrize("width", [20, 80, 300])
def test_no_number_is_cut_short(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run("demo")
    assert "…" not in out
    assert "Lawrenceville" in out


def test_reader_that_goes_away():
    for arguments in ("demo --json", "demo"):
        command = f"{sys.executable} -m isdiag {arguments}; echo $? >&2"
        result = subprocess.run(
            ["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=True
        )
        assert "Traceback" not in result.stderr
        assert result.stderr.strip() in ("0", "2")  # 0 where all was written before the reader left
    result = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m isdiag demo > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("isdiag: ")


def shell(command, **environment):
    """Run a line of bash in which $isdiag is the command."""
    command = command.replace("$isdiag", f"{sys.executable} -m isdiag")
    return subprocess.run(
        ["bash", "-c", command], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_name_that_the_terminal_cannot_show(tmp_path, good):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.column_stack([good, good]), columns=["\N{GREEK SMALL LETTER TAU}", "b"])
    for options in ("", "--json"):
        result = shell(f"$isdiag report {path} {options}", PYTHONIOENCODING="ascii")
        assert (result.returncode, result.stderr) == (0, "")
        assert "\\u03c4" in result.stdout


def test_closed_streams(tmp_path, good):
    np.save(tmp_path / "a.npy", good)
    path = tmp_path / "a.npy"
    result = shell(f"$isdiag report {path} >&-")
    assert (result.returncode, result.stderr) == (2, "isdiag: standard output is closed\n")
    result = shell(f"$isdiag report {path} missing.npy --json 2>&-")
    assert result.returncode == 2
    assert len(json.loads(result.stdout)) == 1  # nothing that was meant for stderr
    result = shell("$isdiag --version > /dev/full")
    assert result.returncode == 2
    assert result.stderr.startswith("isdiag: ")
    assert result.stderr.count("\n") == 1


# The command as from a terminal: what a script runs in the background is started with interrupts ignored.
HEEDING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("isdiag", run_name="__main__", alter_sys=True)
"""


def test_interrupt(tmp_path):
    pipe = tmp_path / "a.csv"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, "report", pipe],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with pipe.open("w"):  # opens when the command reads
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "isdiag: interrupted\n")


def test_interrupt_of_a_callback(run, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    @ctypes.CFUNCTYPE(None)
    def callback():
        raise KeyboardInterrupt

    def load(*arguments):
        callback()  # loses what it raises
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setattr(report, "load", load)
    try:
        assert run("report", "a.npy") == (130, "", "isdiag: interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_names_on_stderr_are_printable(run, tmp_path):
    odd = "\x1b[31m.csv"
    (tmp_path / odd).write_text("\x1b[1mdraw,\x1b[2mb\n1\n")
    (tmp_path / "a.csv").write_text("\x1b[1m__,b\n" + "1,2\n" * 40)
    for arguments in (
        ["report", tmp_path / odd, "\x1b.npy"],
        ["report", tmp_path / "a.csv"],
        ["demo", "\x1b"],
    ):
        _, _, err = run(*arguments)
        assert "?" in err
        assert "\x1b" not in err


FILES = {
    "missing.npy": None,
    "wrong.dat": b"1\n2\n",
    "empty.csv": b"",
    "header_only.csv": b"a,b\n",
    "words.csv": b"1,2\n3,x\n",
    "ragged.csv": b"1,2\n3\n",
    "index.csv": b",a\n0,1.5\n1,2.5\n",
    "damaged_first.csv": b"1,0.5.2\n1,2\n",
    "missing_first.csv": b"NA\n1\n2\n",
    "semicolons.csv": b"1;2\n3;4\n",
    "binary.csv": b"\xff\xfe\x00",
    "broken.npy": b"no array",
    "broken.npz": b"no archive",
    "cut.npy": b"\x93NUMPY\x01",
    "cut.npz": b"PK\x03\x04",
    "empty.npy": b"",
    "broken.csv.gz": b"1\n2\n",
    "cut.csv.gz": gzip.compress(b"1\n2\n")[:-4],
    "broken.csv.xz": b"1\n2\n",
    "wrong.gz.dat": b"",
    "folder.csv": "folder",
}


@pytest.mark.parametrize("name", FILES)
def test_unreadable_files(run, tmp_path, good, name):
    if FILES[name] == "folder":
        (tmp_path / name).mkdir()
    elif FILES[name] is not None:
        (tmp_path / name).write_bytes(FILES[name])
    np.save(tmp_path / "good.npy", good)
    code, out, err = run("report", tmp_path / name, tmp_path / "good.npy")
    assert code == 2
    assert name in err
    assert "for an estimate  sound" in out  # the readable file is reported all the same


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n\n# more\n3,NA\n", "line 5, column b: a value is missing ('NA')"),
        ("1,2\n,3\n", "line 2, column 0: a value is missing ('')"),
        ("a\nx\n1\n", "line 2, column a: 'x' is not a number"),
        ("a,b\n1,2\n3\n4,5\n", "line 3: 1 field(s), where 2 are expected"),
        ("1,2\n3,4,5 # note\n", "line 2: 3 field(s), where 2 are expected"),
        ("a,b\n1,2,3\n", "2 name(s) for 3 columns"),
        ('a,b\n"1.5","2,5"\n', "line 2, column b: '2,5' has a decimal comma"),
        ("a\n-1,5\n-2,5\n", "1 name(s) for 2 columns (decimal commas?"),
        ("a\tb\n-1,5\t2\n", "line 2, column a: '-1,5' has a decimal comma"),
        ("a;b\n1,5;2,5\n", "fields are separated by semicolons"),
        ("a;b\n1.5;2.5\n", "fields are separated by semicolons"),
        ("a,b\n1,1_0\n", "line 2: could not convert string '1_0'"),
        ("1\n2\n\xff\n".encode("latin-1"), "not a text file of numbers"),
    ],
)
def test_a_fault_in_a_text_has_its_place(run, tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = run("report", path)
    assert code == 2
    assert f"{path}: {said}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2)),
        np.float64(1.0),
        np.empty(0),
        np.empty((5, 0)),
        np.zeros(3, complex),
        np.array(["a"]),
    ],
)
def test_arrays_that_are_no_log_weights(run, tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    code, _, err = run("report", tmp_path / "a.npy")
    assert code == 2
    assert "a.npy" in err


def test_pickles_are_refused(run, tmp_path):
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    assert run("report", tmp_path / "a.npy")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["report"],
        ["nope"],
        ["demo", "--k-max", "nan"],
        ["demo", "--ess-min", "1.5"],
        ["demo", "--gamma-max", "0"],
        ["demo", "--r-eff", "0"],
        ["demo", "--r-eff", "file.csv"],
        ["demo", "--workers", "0"],
        ["report", "a.npy", "--r-eff", "-1"],
        ["report", "a.npy", "--columns="],
        ["demo", "--rule", "best"],
        ["demo", "--k-max", "-1"],
        ["demo", "--nope"],
        ["demo", "--top", "0"],
    ],
)
def test_bad_usage(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "error: " in err


def test_bare_command_prints_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    for command in ("report", "demo", "warmup"):
        assert f"\n    {command} " in err


def test_version(run):
    assert run("--version")[1].strip() == f"isdiag {isdiag.__version__}"


def test_without_rich_the_cure_is_named(tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('no rich', name='rich')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "isdiag", "demo"], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "pip install 'isdiag[cli]'" in result.stderr
    result = subprocess.run(
        [sys.executable, "-m", "isdiag", "demo", "--json"], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert len(json.loads(result.stdout)) == 3


def test_shipped_data_are_what_the_script_makes():
    shipped = report.demo_sources()[1].log_w
    np.testing.assert_allclose(make_demo_data.stack_loss(), shipped, rtol=1e-9)


def test_khat_of_the_regression_tends_to_the_truth():
    # The tail index of every ratio is known in closed form; two days have 0.9.
    truth = make_demo_data.true_k()
    khat = isdiag.pareto_khat(make_demo_data.stack_loss(draws=100_000), axis=0)
    assert (truth > 0.7).sum() == 2
    assert np.abs(khat - truth)[truth > 0.7].max() < 0.1
    assert np.corrcoef(khat, truth)[0, 1] > 0.9


# ------------------------------------------------------------------------------------------- pages


HOSTILE = "<script>alert('$x$')</script>&\""


class Page(HTMLParser):
    """Tags, and text by tag; they close in order, ids are unique, and nothing comes from elsewhere."""

    VOID = ("meta",)

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text, self.ids = [], [], {}, []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
        for name in ("xlink:href", "clip-path"):
            assert re.fullmatch(r"#[\w-]+|url\(#[\w-]+\)", attributes.get(name, "#a"))
        self.ids += [attributes["id"]] if "id" in attributes else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)


@pytest.fixture
def matplotlib():
    return optional("matplotlib")


def test_a_page_of_the_demo(run, tmp_path, matplotlib):
    code, out, err = run("demo", "--html", tmp_path / "out.html")
    assert (code, out, err) == (0, "", "")
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|@import|src=", html)
    page = Page(html)
    assert page.tags.count("svg") == page.tags.count("figure") == 8
    # What to make of it comes before the pictures, and these before the table.
    first = html.index("18 of 21 columns can be believed")
    assert first < html.index("<svg", first) < html.index("<table", first)
    assert html.index(">day 2</td>") < html.index(">day 13</td>")
    for section in html.split("<section>")[1:3]:
        assert "emper" not in section  # what is for an estimate never speaks of it
    assert 'aria-label="The tail of day 2: bad.' in html
    assert "currentColor" in html
    assert run("demo", "--html", tmp_path / "out.html", "--check")[0] == 1


def test_a_page_escapes_names(run, tmp_path, good, matplotlib):
    names = [HOSTILE, "b\u0000\u001b[31m", "c"]
    np.savez(tmp_path / "a.npz", w=np.column_stack([8 * good, 20 * good, good]), columns=names)
    code, out, _ = run("report", tmp_path / "a.npz", "--html", tmp_path / "out.html", "--json")
    assert code == 0
    assert len(columns(out)) == 3
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert any(HOSTILE in text for text in page.text["td"])
    assert any(HOSTILE in text for text in page.text["text"])  # in the picture, and not read as mathematics
    assert not any("\x1b" in text or "\0" in text for texts in page.text.values() for text in texts)


@pytest.mark.parametrize("rule", ["joint", "mse"])
def test_a_page_of_a_vector(run, tmp_path, good, rule, matplotlib):
    np.savez(tmp_path / "a.npz", w=good, h=good)
    code, _, err = run(
        "report", tmp_path / "a.npz", "--h", "h", "--rule", rule, "--html", tmp_path / "out.html"
    )
    assert (code, err) == (0, "")
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == (3 if rule == "joint" else 2)
    assert any("mean of h" in text for text in page.text["th"])


@pytest.mark.parametrize(
    "log_w",
    [np.full(50, np.nan), np.full(50, -np.inf), np.zeros(50), np.zeros(1), np.r_[np.zeros(99), 900.0]],
)
def test_a_page_of_what_cannot_be_said(run, tmp_path, log_w, matplotlib):
    np.save(tmp_path / "a.npy", log_w)
    code, _, err = run("report", tmp_path / "a.npy", "--html", tmp_path / "out.html")
    assert (code, err) == (0, "")
    Page((tmp_path / "out.html").read_text(encoding="utf-8"))


def test_the_pictures_of_a_page_have_the_efficiency_of_their_column(run, tmp_path, rng, matplotlib):
    np.savez(tmp_path / "a.npz", w=rng.normal(size=(2000, 2)), r_eff=[1.0, 0.1])
    run("report", tmp_path / "a.npz", "--html", tmp_path / "out.html")
    found = isdiag.diagnose(np.load(tmp_path / "a.npz")["w"], axis=0, r_eff=[1.0, 0.1])
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    at = int(np.argmax(found.khat))
    length = int(isdiag.tail_length(2000, [1.0, 0.1][at]))
    assert f"khat {found.khat[at]:.2f} ± " in html
    assert f"from the largest {length} of 2000 weights" in html


def test_a_page_that_cannot_be_written(run, tmp_path, good, matplotlib):
    np.save(tmp_path / "a.npy", good)
    code, out, err = run("report", tmp_path / "a.npy", "--html", tmp_path / "none" / "out.html")
    assert (code, out) == (2, "")
    assert "No such file or directory" in err


def test_without_matplotlib_the_cure_of_a_page_is_named(run, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("isdiag.plots", "isdiag.report.page"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(report, "page", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("demo", "--html", tmp_path / "out.html")
    assert (code, out) == (2, "")
    assert "pip install 'isdiag[plot]'" in err
