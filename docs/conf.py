"""Sphinx settings: python -m sphinx -W --keep-going -b html docs build/docs (no network is needed)."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from sphinx.ext.autodoc.mock import _MockObject

import isdiag

# Where torch or JAX are not installed their stand-ins must take part in `Tensor | list`.
_MockObject.__or__ = _MockObject.__ror__ = lambda self, _: self

project = "isdiag"
author = "the isdiag developers"
copyright = author  # noqa: A001
version = release = isdiag.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "isdiag_docs",
    "mathml",
    "accessible",
    "folded",
]
exclude_patterns = ["_build", "_ext", "_static"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# Names in single backticks in docstrings are objects where there is one.
default_role = "autolink"
autodoc_typehints = "none"  # the docstrings say it in words
_OPTIONAL = (
    "torch",
    "jax",
    "xarray",
    "arviz_base",
    "arviz_stats",
    "pyarrow",
    "dask",
    "ray",
)
autodoc_mock_imports = [name for name in _OPTIONAL if importlib.util.find_spec(name) is None]
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"isdiag {release}"
html_static_path = ["_static"]
html_css_files = ["isdiag.css"]
html_show_sourcelink = False
html_copy_source = False
