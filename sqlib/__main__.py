"""``python -m sqlib``."""

from __future__ import annotations

import sys

from sqlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
