"""The page's own modules are siblings of `app.py`, as in a Space."""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "space"))
