"""The program that `pulumi up` runs; `plinth up` runs the same one inline."""

from pathlib import Path

import pulumi

from plinth.engine import program

program(Path(__file__).parent.resolve(), pulumi.get_stack())
