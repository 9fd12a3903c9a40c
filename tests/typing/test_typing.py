"""Types as a user's checker sees them: pyright, strict, on results.py and on what README says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import isdiag
from tests import registry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def pyright():
    """The command, which fails to start without a network where its Node.js is not there yet."""
    beside = Path(sys.executable).with_name("pyright")
    found = str(beside) if beside.exists() else shutil.which("pyright")
    works = found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
    if not works and not os.environ.get("ISDIAG_REQUIRE_ALL"):
        pytest.skip("pyright is not installed")
    assert works, "pyright is not installed"
    return found


def errors(pyright, folder):
    """Errors of pyright, strict, on the files of a folder, with the isdiag of this checkout."""
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT)],
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportMissingTypeStubs": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1} {each['message']}"
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


def test_results_have_their_types_and_so_has_the_readme(pyright, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    code = re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", "".join(blocks), re.MULTILINE)
    assert any("best.estimate" in line for line in code)
    comments = "# pyright: basic, reportUnusedExpression=false\n"
    (tmp_path / "readme.py").write_text(comments + "\n".join(code) + "\n")
    shutil.copy(HERE / "results.py", tmp_path)
    (tmp_path / "wrong.py").write_text(
        "import isdiag\n\nisdiag.select_gamma([0.0]).estimate\nisdiag.psis([0.0]).k\n"
    )
    found = errors(pyright, tmp_path)
    assert [line for line in found if not line.startswith("wrong.py")] == []
    assert {line.split()[0] for line in found} >= {"wrong.py:3", "wrong.py:4"}  # it does look


def test_every_result_of_the_registry_is_checked():
    text = (HERE / "results.py").read_text()
    for function in registry.FUNCTIONS:
        for result in filter(None, (function.result, function.by_mse)):
            assert f"isdiag.{result.__name__})" in text
        if function.result is not None:
            assert f"isdiag.{function.name}(" in text
    assert isdiag.GPDFit.__name__ in text
