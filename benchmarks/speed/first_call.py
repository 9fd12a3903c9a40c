"""How long the first call of a process takes, before and after the kernels are cached.

``python benchmarks/speed/first_call.py`` prints seconds, each from processes of their own: an empty cache,
then five times a warm one. Importing numpy is not part of it, importing isdiag and Numba is.
"""

import os
import statistics
import subprocess
import sys
import tempfile

CALL = """
import time, numpy as np
x = np.random.default_rng(0).normal(size=1000)
start = time.perf_counter()
import isdiag
isdiag.{call}(x)
print(time.perf_counter() - start)
"""
CALLS = ("select_gamma", "psis", "diagnose")
WARM = 5


def seconds(call: str, folder: str) -> float:
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    command = [sys.executable, "-c", CALL.format(call=call)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def main() -> None:
    for name in CALLS:
        with tempfile.TemporaryDirectory() as folder:
            cold = seconds(name, folder)
            warm = [seconds(name, folder) for _ in range(WARM)]
        print(
            f"{name}: cold {cold:.1f} s, "
            f"warm {statistics.median(warm):.2f} s ({min(warm):.2f} - {max(warm):.2f})"
        )


if __name__ == "__main__":
    main()
