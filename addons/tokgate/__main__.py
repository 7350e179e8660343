"""`python -m tokgate`: the same as the `tokgate` command, for source folders and for interpreters without it."""

import sys

from tokgate.cli.main import main

sys.exit(main())
