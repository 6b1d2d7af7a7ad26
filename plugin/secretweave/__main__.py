"""`python -m secretweave`, and the console script: a plain render, and Argo CD's, start without click."""

import gc
import os
import sys
from typing import NoReturn

from secretweave import cli, options


def main() -> NoReturn:
    """Runs the command of sys.argv and exits."""
    # One run makes no garbage in circles worth a tenth of its time to look for.
    gc.set_threshold(100_000)
    if None in (sys.stdin, sys.stdout, sys.stderr):
        cli.open_closed_streams()
    request = options.quick(sys.argv[1:], os.environ)
    if request is None:
        from secretweave import commands

        commands.main()
    code = cli.run(request, cli.QUICK[request.command])
    sys.stderr.flush()
    # All is written and flushed: taking the interpreter down in order would be a tenth of a small run.
    os._exit(code)


if __name__ == "__main__":
    main()
