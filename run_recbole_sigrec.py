"""Train and test a model: the same program as ``recbole-sigrec run``."""

import sys

from recbole_sigrec.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("run", *sys.argv[1:]))
