"""``python -m prefect_lite.cli``."""

import sys

from prefect_lite.cli import main

sys.exit(main())
