"""`python -m isdiag` is the command `isdiag`."""

import sys

from isdiag.cli import main

sys.exit(main())
