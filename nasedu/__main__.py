"""`python -m nasedu`."""

import sys

from nasedu.cli import main

sys.exit(main())
