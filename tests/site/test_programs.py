"""The how-to on other programs: each section is run where its program is installed, which CI has none of."""

import doctest
import re

import numpy as np
import pytest

from tests.helpers import ROOT

PAGE = ROOT / "docs" / "howto" / "programs.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
# As CmdStan 2.37 writes them; the values of what is not read are those of one of its runs.
CONFIGURATION = """\
# stan_version_major = 2
# stan_version_minor = 37
# stan_version_patch = 0
# model = normal_model
# method = sample (Default)
#   sample
#     num_samples = 1000 (Default)
#     num_warmup = 1000 (Default)
#     save_warmup = false (Default)
#     thin = 1 (Default)
#     adapt
#       engaged = true (Default)
#     algorithm = hmc (Default)
#       hmc
#         engine = nuts (Default)
#           nuts
#             max_depth = 10 (Default)
#         metric = diag_e (Default)
#         stepsize = 1 (Default)
#     num_chains = 1 (Default)
# id = {chain}
# random
#   seed = 1
"""
ADAPTED = """\
# Adaptation terminated
# Step size = 0.9
# Diagonal elements of inverse mass matrix:
# 0.02
"""
TIMES = """\
#
#  Elapsed Time: 0.01 seconds (Warm-up)
#                0.01 seconds (Sampling)
#                0.02 seconds (Total)
#
"""
DIAGNOSTICS = ["accept_stat__", "stepsize__", "treedepth__", "n_leapfrog__", "divergent__", "energy__"]


def write_output_of_cmdstan(folder):
    """Draws of a normal mean under a wide prior, and the log-likelihoods of 50 observations."""
    folder.mkdir()
    y = np.random.default_rng(1).normal(1.0, 1.0, size=50)
    rng = np.random.default_rng(2)
    for chain in range(1, 5):
        mu = rng.normal(y.mean() * 50 / 50.01, 50.01**-0.5, size=(1000, 1))
        log_lik = -((y - mu) ** 2) / 2 - np.log(2 * np.pi) / 2
        log_p = log_lik.sum(axis=1, keepdims=True)
        table = np.hstack([log_p, np.tile([0.9, 0.9, 2.0, 3.0, 0.0], (1000, 1)), 1.0 - log_p, mu, log_lik])
        names = ["lp__", *DIAGNOSTICS, "mu", *(f"log_lik.{i + 1}" for i in range(50))]
        rows = "".join(",".join(f"{value:.8g}" for value in row) + "\n" for row in table)
        text = CONFIGURATION.format(chain=chain) + ",".join(names) + "\n" + ADAPTED + rows + TIMES
        (folder / f"normal_{chain}.csv").write_text(text)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SECTIONS)
def test_section(name, tmp_path, monkeypatch):
    blocks = re.findall(r"^```pycon\n(.*?)^```", SECTIONS[name], re.MULTILINE | re.DOTALL)
    for module in sorted(set(re.findall(r"^>>> (?:import|from) (\w+)", "".join(blocks), re.MULTILINE))):
        pytest.importorskip(module, reason=f"{module} is not installed")
    write_output_of_cmdstan(tmp_path / "output")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner()
    names = {}
    for number, block in enumerate(blocks):
        test = doctest.DocTestParser().get_doctest(block, names, f"{name}, block {number}", str(PAGE), 0)
        assert runner.run(test, clear_globs=False).failed == 0
        names = test.globs
    assert runner.tries > 5
