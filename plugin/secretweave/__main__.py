"""`python -m secretweave`, and the console script: a plain render starts without click, all else with it."""

import os
import sys
from typing import NoReturn

from secretweave import cli, options


def main() -> NoReturn:
    """Runs the command of sys.argv and exits."""
    request = options.quick(sys.argv[1:], os.environ)
    if request is None:
        from secretweave.commands import command

        command(prog_name="secretweave")
        sys.exit(0)
    sys.exit(cli.run(request, cli.render))


if __name__ == "__main__":
    main()
