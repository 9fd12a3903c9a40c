"""Reports on files of log-weights: reading them, and showing a diagnosis as a table, as JSON or as a page.

Only `table` needs rich and only `page` matplotlib, so they are imported apart. `import isdiag` imports
none of this.
"""

from isdiag.report.files import demo_sources, load
from isdiag.report.merged import Merged, is_merged, load_merged
from isdiag.report.source import Reading, Source, printable
from isdiag.report.strict_json import to_json

__all__ = [
    "Merged",
    "Reading",
    "Source",
    "demo_sources",
    "is_merged",
    "load",
    "load_merged",
    "printable",
    "to_json",
]
