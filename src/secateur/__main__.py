"""`python -m secateur`: the command `secateur`, which does not look for modules in the working folder first."""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
    del sys.path[0]  # put there by -m

from secateur.cli import main

main()
