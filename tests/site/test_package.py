"""The package as a whole: public names, docstrings, what an import costs, and the compile cache."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import isdiag

PACKAGE = Path(isdiag.__file__).parent
KERNELS = sorted((PACKAGE / "_kernels").glob("*.py"))


def python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# ----------------------------------------------------------------------------------------- import


def test_import_is_light():
    heavy = ["numba", "scipy", "torch", "jax", "rich", "xarray", "arviz", "matplotlib", "pandas", "polars"]
    heavy += ["pyarrow", "dask", "ray", "isdiag.rl"]
    heavy += ["trl", "verl", "transformers"]
    code = f"import sys, isdiag; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]"


def test_computing_imports_numba_and_nothing_else():
    code = (
        "import sys, isdiag; isdiag.khat_threshold(100); assert 'numba' not in sys.modules;"
        "isdiag.ess([0.0, 1.0]); assert 'numba' in sys.modules;"
        "print([m for m in ('scipy.stats', 'torch', 'jax', 'rich') if m in sys.modules])"
    )
    assert python(code) == "[]"


def test_the_citation_is_of_this_version():
    text = (PACKAGE.parent / "CITATION.cff").read_text()
    assert f"\nversion: {isdiag.__version__}\n" in text


# ------------------------------------------------------------------------------- compiled kernels


def test_kernels_stand_alone():
    # The stamp of their caches covers the folder: a kernel or constant from elsewhere would go stale.
    for path in KERNELS:
        own = [module for module in imports(path) if module.split(".")[0] == "isdiag"]
        assert all(module.startswith("isdiag._kernels.") for module in own), path
        assert len(path.read_text().splitlines()) <= 450, path
    others = [p for p in PACKAGE.rglob("*.py") if p not in KERNELS and "numba" in p.read_text().split()]
    assert others == []


def imports(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            rooms = module in ("isdiag", "isdiag._core")
            found += [f"{module}.{alias.name}" for alias in node.names] if rooms else [module]
    return found


# Who may import whom: each room only those before it.
CORE = (
    ("typing", "labels"),
    ("check",),
    ("bands", "threads"),
    ("boundary", "markup", "said"),
    ("parts", "chains"),
    ("intervals",),
    ("weights",),
    ("result", "statuses", "units", "value_sums"),
    ("tails", "selection", "caution", "steps", "resampling", "mixture", "leave_one_out"),
    ("moment_matching",),
    ("moments", "variance_test", "divergences"),
    ("estimate", "quantiles"),
    ("least_error", "expectation", "paths", "control_variate", "summary"),
    ("diagnosis", "packing"),
)
FACES = sorted(p for p in PACKAGE.glob("_*.py") if p.stem not in ("__init__", "__main__", "_warmup"))


def test_core_imports_only_downwards():
    level = {name: i for i, names in enumerate(CORE) for name in names}
    modules = [p for p in (PACKAGE / "_core").glob("*.py") if p.stem != "__init__"]
    assert {p.stem for p in modules} == set(level)
    for path in modules:
        for module in imports(path):
            if module.startswith("isdiag._core."):
                assert level[module.split(".")[2]] < level[path.stem], (path.stem, module)
            elif module.startswith("isdiag"):
                known = ("isdiag._kernels", "isdiag.status", "isdiag._kernels.records")
                assert module in known, (path.stem, module)


def test_faces_import_the_core_and_no_face():
    assert FACES
    for path in FACES:
        for module in imports(path):
            if module.startswith("isdiag"):
                assert module.startswith("isdiag._core"), (path.stem, module)


def test_kernels_import_only_downwards():
    # Python would find a circle; that records and the way of compiling are at the bottom it would not.
    for name in ("_jit", "records"):
        own = [m for m in imports(PACKAGE / "_kernels" / f"{name}.py") if m.startswith("isdiag")]
        assert own == []


# Of intrinsics, and a Python twin of one.
MAKERS = {
    "load",
    "splat",
    "_fold",
    "_lane_sums",
    "_powers_of_y",
    "_product",
    "_to_the_fourth",
    "_own_powers",
    "_square_and_product",
    "_one_by_one",
}


WAYS = ("counted=True", "inlined=True", "fastmath={'contract'}")


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_are_compiled_by_the_house_rules(path):
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"prange", "guvectorize", "vectorize"}
    if path.stem in ("__init__", "_jit", "records"):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(d) for d in node.decorator_list]
            # What reorders sums would give other bits in each copy of a function that LLVM makes.
            known = {"entry", "inner", *(f"inner({how})" for how in WAYS)}
            by_rule = len(decorators) == 1 and (decorators[0] in known or decorators[0].startswith("llvm("))
            assert node.name in MAKERS or by_rule or is_of_passes(node), node.name


def is_of_passes(node):
    """Whether a function makes a kernel of the passes it is given."""
    made, returned = node.body[0], node.body[-1]
    return (
        len(node.body) == 2 and isinstance(made, ast.FunctionDef) and ast.unparse(returned.value) == made.name
    )


def test_flags_of_the_compiler():
    from isdiag._kernels import _jit

    assert _jit.FLAGS == {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def without_caches(path):
    """Copy the package into a folder, without caches; returns the environment that imports the copy."""
    shutil.copytree(PACKAGE, path / "isdiag", ignore=shutil.ignore_patterns("__pycache__"))
    return imported_from(path)


def imported_from(path):
    return {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": ""}


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without caches, and the environment that imports it."""
    return tmp_path / "isdiag", without_caches(tmp_path)


SEGMENTS = "from isdiag._kernels.sums import segments_of; print(segments_of(ARGUMENTS))"
KHAT = "import isdiag; print(isdiag.pareto_khat([i**2 / 40 for i in range(40)]))"
BITS = (
    "import isdiag, math; x = [3 * math.sin(i * i) for i in range(700)]; d = isdiag.diagnose(x, x);"
    "print(d.to_dict(), isdiag.psis(x).log_weights.tobytes().hex(), isdiag.ess(x, kind='perplexity'));"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with a copy of the package that has compiled what KHAT and BITS need, and what it printed."""
    path = tmp_path_factory.mktemp("compiled")
    environment = without_caches(path)
    return path, [python(code, **environment) for code in (KHAT, BITS)]


def test_what_is_loaded_has_the_bits_of_what_was_compiled(compiled):
    # The first compiles and links each kernel by itself, the next loads what was cached.
    path, printed = compiled
    cached = sorted(path.rglob("*.nbc"))
    assert cached
    assert [python(code, **imported_from(path)) for code in (KHAT, BITS)] == printed
    assert sorted(path.rglob("*.nbc")) == cached


def test_an_upgrade_does_not_return_old_numbers(compiled, tmp_path):
    path, (before, _) = compiled
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    # A new version of a constant that only an inner kernel of another file reads, of the same size and time.
    kernels = tmp_path / "isdiag" / "_kernels" / "records.py"
    stamp = kernels.stat()
    text = kernels.read_text()
    assert "\nPRIOR_K = 0.5\n" in text
    kernels.write_text(text.replace("PRIOR_K = 0.5", "PRIOR_K = 0.1"))
    os.utime(kernels, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert kernels.stat().st_size == stamp.st_size
    after = python(KHAT, **imported_from(tmp_path))
    # 8 draws in the tail: the prior's share of khat is 10 / 18
    assert float(before) - float(after) == pytest.approx(0.4 * 10 / 18)


def test_a_cache_file_cut_short_is_written_anew(copy):
    # A full disk or a killed process leaves one; it raised UnpicklingError until somebody deleted it.
    package, environment = copy
    segments = SEGMENTS.replace("ARGUMENTS", "9, 1")
    assert python(segments, **environment) == "1"
    for suffix, keep in (("nbi", 0.5), ("nbc", 0.5), ("nbc", 0.0)):
        files = sorted(package.rglob(f"*.{suffix}"))
        assert files
        sizes = [path.stat().st_size for path in files]
        for path, size in zip(files, sizes, strict=True):
            os.truncate(path, int(keep * size))
        assert python(segments, **environment) == "1"
        assert [path.stat().st_size for path in files] == pytest.approx(sizes, rel=0.01)


def test_a_cache_that_cannot_be_saved_breaks_nothing(copy):
    # One of many processes on a folder, as on the disk of a cluster, leaves a file cut short while another
    # compiles.
    package, environment = copy
    segments = SEGMENTS.replace("ARGUMENTS", "9, 1")
    assert python(segments, **environment) == "1"
    (index,) = package.rglob("*segments_of*.nbi")
    size = index.stat().st_size
    os.truncate(index, size // 2)
    too_late = "from isdiag._kernels import _jit; _jit._FolderCache.load_overload = lambda *_: None;"
    assert python(too_late + segments, **environment) == "1"
    assert python(segments, **environment) == "1"
    assert index.stat().st_size == size


def test_processes_that_compile_at_once_for_other_types_do_not_share_a_file(copy):
    # Each found no index and called its file the first: the last to be written was run for the types of both.
    package, environment = copy
    at_once = "from isdiag._kernels import _jit; _jit._Files._load_index = lambda _: {};"
    for arguments, expected in (("9, 1", "1"), ("9.0, 1.0", "1.0")):
        assert python(at_once + SEGMENTS.replace("ARGUMENTS", arguments), **environment) == expected
    assert len(list(package.rglob("*segments_of*.nbc"))) == 2


def test_a_kernel_of_the_cache_loads_nothing_that_compiles(copy):
    # It took .3 s of .7, and what the process compiles itself must still find it.
    _, environment = copy
    script = SEGMENTS.replace("ARGUMENTS", "9, 1") + (
        "; import sys; print('scipy.linalg' in sys.modules); import numba, numpy as np\n"
        "print(numba.njit(lambda x: np.dot(x, x))(np.ones(3)))"
    )
    assert python(script, **environment).split() == ["1", "True", "3.0"]
    assert python(script, **environment).split() == ["1", "False", "3.0"]


def test_every_file_of_the_folder_is_in_the_stamp(copy):
    _, environment = copy
    script = (
        "from pathlib import Path; from isdiag._kernels import _jit; stamps = [_jit.STAMP]\n"
        "for path in sorted(Path(_jit.__file__).parent.glob('*.py')):\n"
        "    path.write_text(path.read_text() + '#'); stamps.append(_jit._stamp())\n"
        "print(len(stamps), len(set(stamps)))"
    )
    assert python(script, **environment).split() == [str(len(KERNELS) + 1)] * 2


def test_without_numbas_cache_kernels_compile(copy):
    _, environment = copy
    gone = "from numba.core import caching; del caching.Cache._index_key;"
    script = gone + SEGMENTS.replace("ARGUMENTS", "9, 1") + "; print(segments_of.stats.cache_path)"
    assert python(script, **environment).split() == ["1", "None"]


CALLS = (
    "import numpy as np, isdiag; from isdiag import _kernels; from isdiag._core import parts\n"
    "from isdiag.rl import GammaController\n"
    "x = np.random.default_rng(0).normal(size=(3, 400)); h = x[..., None]\n"
    "isdiag.diagnose(x, x, rule='refit'); isdiag.psis(x, out=x.copy())\n"
    "isdiag.pareto_khat(x, gamma=0.5)\n"
    "c = GammaController(); c.step(x, x); c.step(*np.tile(x, (2, 1, 20)))\n"
    "isdiag.snis(x, h, smooth=True); isdiag.temper(x, 0.5); isdiag.gpd_fit(np.exp(x)); isdiag.ess(x)\n"
    "isdiag.ess(x, kind='perplexity'); isdiag.kong_owen_bias(x, h); isdiag.truncate(x)\n"
    "isdiag.estimate(x, h); isdiag.control_variate(x, h); isdiag.quantile(x, h, [0.1, 0.5])\n"
    "isdiag.finite_variance_test(x); isdiag.expectation_diagnostics(x, h)\n"
    "isdiag.chi2_divergence(x); isdiag.kl_divergence(x, axis=(0, 1), draws='mcmc')\n"
    "isdiag.geometric_path(x, 2 * x, [0.0, 0.5])\n"
    "for f in (isdiag.thermodynamic, isdiag.stepping_stone): f(x, [0.0, 0.5, 1.0])\n"
    "for m in ('systematic', 'residual', 'multinomial'): isdiag.resample(x, 9, method=m)\n"
    "isdiag.next_gamma(x, log_weights=x); isdiag.gpd_fit(np.exp(x), weights=np.exp(x))\n"
    "parts.LONG = 1; isdiag.select_gamma(x, workers=2); isdiag.select_gamma(x[0], k_max=1e-3)\n"
    "isdiag.diagnose(x, h, rule='refit'); isdiag.snis(x, x, smooth='truncate'); isdiag.psis(x)\n"
    "isdiag.control_variate(x, x); isdiag.finite_variance_test(x)\n"
    "isdiag.log_moment(x, 0.5); isdiag.renyi_divergence(x, 0.5); isdiag.geometric_path(x, 2 * x, [1.0])\n"
    "s = isdiag.Summary.of(x, x, n_max=100); s.merge(s).diagnose(rule='refit', tail_length=10)\n"
    "from isdiag._core import leave_one_out as loo, tails; from isdiag._core.boundary import rows_of\n"
    "rows = rows_of(x, -1, None); loo.leave_one_out(rows, tails.lengths_of(rows), x.copy())\n"
    "loo.predictive(x, x); isdiag.relative_efficiency(x); isdiag.relative_efficiency(x[:, :9])\n"
)
# The kernels, with the types, that a process has called, and how many it had to compile.
CALLED = (
    "\nimport json; from importlib import import_module as load; from isdiag import _kernels\n"
    "homes = [load('isdiag._kernels.' + home) for home in {*_kernels._HOME.values()}]\n"
    "kernels = {v for home in homes for v in vars(home).values() if hasattr(v, 'stats')}\n"
    "names = {k: (k.py_func.__module__, k.py_func.__qualname__) for k in kernels}\n"
    "called = [(*names[k], types) for k in kernels for types in k.stats.cache_hits]\n"
    "print(json.dumps([sorted(map(str, called)), sum(sum(k.stats.cache_misses.values()) for k in kernels)]))"
)


def test_warmup_leaves_nothing_to_compile():
    # In the package as it is: what this compiles, the other tests load.
    from isdiag import _kernels

    here = {"PYTHONPATH": str(PACKAGE.parent)}
    said = python("import isdiag.cli; isdiag.cli.main(['warmup'])", **here)
    assert str(_kernels.select_rows.stats.cache_path) in said
    warm, compiled = json.loads(python("from isdiag._warmup import warmup; warmup()" + CALLED, **here))
    assert compiled == 0
    called, compiled = json.loads(python(CALLS + CALLED, **here))
    assert compiled == 0
    assert len({name.split(", (")[0] for name in called}) >= 30
    # Others may have compiled what the warm-up does not call.
    assert set(called) <= set(warm)


def test_no_writable_cache_breaks_nothing(copy):
    package, environment = copy
    (package / "_kernels" / "__pycache__").write_text("a file where Numba would make its folder")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TMPDIR"), "/dev/null")
    script = SEGMENTS.replace("ARGUMENTS", "9, 1") + "; print(segments_of.stats.cache_path)"
    assert python(script, **(environment | nowhere)).split() == ["1", "None"]
    assert not list(package.rglob("*.nbc"))
