"""Reports on files of log-weights: reading them, and showing a diagnosis as a table or as JSON.

Only `table` needs rich. `import isdiag` imports none of this.
"""

from isdiag.report.files import demo_sources, load
from isdiag.report.source import Reading, Source

__all__ = ["Reading", "Source", "demo_sources", "load"]
