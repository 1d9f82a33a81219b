"""`python -m lab` is the command `lab`."""

from lab.cli.main import run

run()
