"""Clusters of processes, of which one is killed. They take half a minute to start, so they are asked for:

ISDIAG_CLUSTERS=1 python -m pytest tests/adapters/test_clusters.py
"""

import os
import signal

import numpy as np
import pytest

import isdiag
from isdiag import Summary

pytestmark = [
    pytest.mark.skipif("ISDIAG_CLUSTERS" not in os.environ, reason="ISDIAG_CLUSTERS=1 starts clusters"),
    # What the clusters leave open when they stop is theirs.
    pytest.mark.filterwarnings("default"),
]


def dies_once(path):
    """Kill the process that finds the file, which is there once."""
    if os.path.exists(path):
        os.unlink(path)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def alive(tmp_path):
    path = tmp_path / "alive"
    path.touch()
    return path


@pytest.fixture
def x(rng):
    return 2 * rng.normal(size=40_000)


def assert_whole(summary, x):
    assert summary.n == x.size
    assert summary.pareto_khat() == pytest.approx(isdiag.pareto_khat(x), rel=1e-12)
    assert summary.ess() == pytest.approx(isdiag.ess(x), rel=1e-11)
    assert summary.select_gamma().gamma == pytest.approx(isdiag.select_gamma(x).gamma, rel=1e-10)


def block_of_dask(block, path):
    dies_once(path)
    return block


def test_dask_loses_a_worker(x, alive):
    da = pytest.importorskip("dask.array")
    distributed = pytest.importorskip("distributed")
    from isdiag import dask

    lazy = da.from_array(x, chunks=10_000)
    lazy = lazy.map_blocks(block_of_dask, str(alive), dtype=x.dtype, meta=np.empty(0))
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        found = client.compute(dask.summary(lazy)).result()
    assert not alive.exists()
    assert_whole(found, x)


@pytest.fixture(scope="module")
def ray():
    library = pytest.importorskip("ray")
    library.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield library
    library.shutdown()


def test_ray_datasets(ray, x):
    pa = pytest.importorskip("pyarrow")
    from isdiag import ray as isdiag_ray

    h, age = np.cos(x), np.arange(x.size) % 3
    tables = [pa.table({"log_w": x[i::5], "h": h[i::5], "age": age[i::5]}) for i in range(5)]
    dataset = ray.data.from_arrow(tables)
    found = isdiag_ray.summary(dataset, "log_w", "h")
    assert_whole(found, x)
    assert found.snis().std_error == pytest.approx(isdiag.snis(x, h).std_error, rel=1e-10)
    groups = isdiag_ray.summary(dataset, "log_w", by="age")
    assert sorted(groups) == [0, 1, 2]
    for key, group in groups.items():
        assert_whole(group, x[age == key])
    with pytest.raises(ValueError, match="no column 'w'"):
        isdiag_ray.summary(dataset, "w")


def test_ray_tasks_and_actors(ray, x, alive):
    from isdiag import ray as isdiag_ray

    @ray.remote(max_retries=2)
    def of_part(i):
        dies_once(alive)
        return Summary.of(x[i::6])

    @ray.remote(num_cpus=0)
    class Worker:
        def summary(self, i):
            return Summary.of(x[i::6])

    workers = [Worker.remote() for _ in range(2)]
    parts = [of_part.remote(i) for i in range(4)] + [w.summary.remote(4 + i) for i, w in enumerate(workers)]
    assert_whole(ray.get(isdiag_ray.merge(parts, at_a_time=2)), x)
    assert not alive.exists()
    with pytest.raises(ValueError, match="at least one, got none"):
        isdiag_ray.merge([])
