"""Arrow batches and parquet files: what the array in memory gives."""

import json
import math

import numpy as np
import pytest

import isdiag
from isdiag import cli
from tests.helpers import optional

pa = optional("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("isdiag.arrow")


@pytest.fixture
def table(rng):
    x = 1.5 * rng.normal(size=5000)
    return pa.table({"log_w": x, "reward": np.cos(x), "age": [f"v{i % 3}" for i in range(5000)]})


@pytest.fixture
def files(table, tmp_path):
    for i in range(2):
        pq.write_table(table.slice(2000 * i, 2000 + 1000 * i), tmp_path / f"{i}.parquet", row_group_size=700)
    return str(tmp_path / "*.parquet")


def test_sources_of_batches(table, files):
    x, h = table["log_w"].to_numpy(), table["reward"].to_numpy()
    expected = isdiag.snis(x, h)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(300))
    for source in (table, reader, table.to_batches(999), files, arrow.paths_of(files)):
        found = arrow.summarize(source, "log_w", "reward", batch_size=512, progress=source is files).snis()
        assert found.estimate == pytest.approx(expected.estimate, rel=1e-12)
        assert found.std_error == pytest.approx(expected.std_error, rel=1e-10)
        assert found.khat == pytest.approx(expected.khat, rel=1e-12)


def test_groups(table, files):
    x, age = table["log_w"].to_numpy(), np.array(table["age"])
    found = arrow.summarize(files, "log_w", by="age", batch_size=100)
    assert list(found) == ["v0", "v1", "v2"]
    for key, summary in found.items():
        assert summary.ess() == pytest.approx(isdiag.ess(x[age == key]), rel=1e-11)
    missing = pa.table({"log_w": [0.0, 1.0, 2.0], "age": [None, 1, None]})
    assert {key: s.n for key, s in arrow.summarize(missing, "log_w", by="age").items()} == {None: 2, 1: 1}
    categories = pa.array(["a", None, "a", "b"]).dictionary_encode()
    for by, expected in (
        (categories, {"a": 2, None: 1, "b": 1}),
        ([math.nan, 1.0] * 2, {math.nan: 2, 1.0: 2}),
    ):
        table = pa.table({"log_w": np.zeros(4), "by": by})
        found = arrow.summarize(table, "log_w", by="by", batch_size=1)
        assert {key: each.n for key, each in found.items()} == expected


def test_nothing_read_is_a_summary_of_nothing():
    empty = pa.table({"log_w": pa.array([], pa.float32())})
    assert arrow.summarize(empty, "log_w").n == 0
    assert arrow.summarize(empty, "log_w", "log_w").n == 0


def test_smoothing_out_of_memory(table, files, tmp_path):
    out = tmp_path / "smoothed"
    summary = arrow.psis(files, "log_w", out, batch_size=300, normalize=False)
    expected = isdiag.psis(table["log_w"].to_numpy(), normalize=False)
    np.testing.assert_allclose(pq.read_table(out)["log_weights"], expected.log_weights, rtol=1e-11)
    assert summary.pareto_khat() == pytest.approx(expected.khat, rel=1e-12)
    arrow.psis(table, "log_w", out, summary=summary, name="w")
    assert pq.read_table(out).column_names == ["w"]


def test_faults_are_named(table, files, tmp_path):
    with pytest.raises(ValueError, match=r"no column 'w' in .*parquet, which has log_w, reward, age"):
        arrow.summarize(files, "w")
    with pytest.raises(ValueError, match="column 'age' must hold real numbers, got string"):
        arrow.summarize(table, "age")
    with pytest.raises(ValueError, match="column 'x' holds 1 missing values"):
        arrow.summarize(pa.table({"x": [1.0, None]}), "x")
    with pytest.raises(FileNotFoundError, match="matches no file"):
        arrow.summarize(str(tmp_path / "*.nothing"), "x")
    with pytest.raises(TypeError, match="read twice"):
        arrow.psis(iter(table.to_batches()), "log_w", tmp_path / "out")


# ------------------------------------------------------------------------------------------- reports


def report(capsys, *arguments):
    code = cli.main(["report", "--json", *map(str, arguments)])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_a_report_on_parquet(table, files, capsys):
    x, h = table["log_w"].to_numpy(), table["reward"].to_numpy()
    code, (found,), said = report(capsys, files, "--h", "reward")
    expected = isdiag.diagnose(x, h)
    assert code == 0
    assert "2 files are read as one" in said
    (column,) = found["columns"]
    assert column["n"] == 5000
    assert column["khat"] == pytest.approx(expected.khat, rel=1e-12)
    assert column["gamma"] == pytest.approx(expected.gamma, rel=1e-10)
    assert column["estimate"] == pytest.approx(expected.estimate.estimate, rel=1e-11)


def test_a_report_by_groups(table, files, capsys):
    code, (found,), _ = report(capsys, files, "--columns", "log_w", "--by", "age")
    assert code == 0
    assert [column["column"] for column in found["columns"]] == ["v0", "v1", "v2"]
    assert sum(column["n"] for column in found["columns"]) == 5000
    assert cli.main(["report", files, "--columns", "log_w", "--by", "age"]) == 0
    assert "v1" in capsys.readouterr().out


def test_a_page_on_parquet(files, tmp_path):
    page = tmp_path / "page.html"
    assert cli.main(["report", files, "--columns", "log_w", "--by", "age", "--html", str(page)]) == 0
    text = page.read_text()
    assert "khat of each column: 0 of 3 above the threshold" in text
    assert "v2" in text
    assert "The tail" not in text  # that needs the draws


def test_a_report_on_a_glob_of_arrays(rng, tmp_path, capsys):
    x = rng.normal(size=(900, 2))
    np.save(tmp_path / "0.npy", x[:100])
    np.save(tmp_path / "1.npy", x[100:])
    code, (found,), _ = report(capsys, tmp_path / "*.npy")
    assert code == 0
    for column, expected in zip(found["columns"], isdiag.diagnose(x, axis=0).khat, strict=True):
        assert column["khat"] == pytest.approx(expected, rel=1e-12)


def test_reports_name_what_is_wrong(table, files, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros(5))
    np.savez(tmp_path / "two.npz", a=np.zeros(5), b=np.zeros(5))
    np.savez(tmp_path / "efficient.npz", a=np.zeros(5), r_eff=np.ones(1))
    for arguments, said in {
        (str(tmp_path / "*.csv"),): "matches no file",
        (str(tmp_path / "tw*.npz"),): "holds 2 arrays",
        (str(tmp_path / "eff*.npz"),): "holds r_eff",
        (str(tmp_path / "x.npy"), "--by", "age"): "in parquet files only",
        (files, "--by", "age"): "takes one column of log-weights, and there are log_w, reward",
        (files, "--columns", "w"): "no column 'w'",
        (files, "--columns", "log_w", "--rule", "mse", "--h", "reward"): "rule must be one of",
        (files, "--columns", "log_w", "--r-eff", str(tmp_path / "x.npy")): "r_eff must be a number",
        (files, "--transpose"): "cannot be transposed",
    }.items():
        code, found, error = report(capsys, *arguments)
        assert (code, found) == (2, [])
        assert said in error
