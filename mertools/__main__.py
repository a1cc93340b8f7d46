"""``python -m mertools``."""

import sys

from mertools.cli import main

sys.exit(main())
