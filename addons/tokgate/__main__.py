"""`python -m tokgate`: the same as the `tokgate` command, for source folders and for interpreters without it."""

import sys

if not sys.flags.safe_path and not __file__.startswith(f"{sys.path[0].rstrip('/')}/tokgate/"):
    del sys.path[0]  # `-m` put the working directory there, which is not where this package is, and may be anybody's

from tokgate.cli.main import main

sys.exit(main())
