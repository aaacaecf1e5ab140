"""The program that `pulumi up` runs; `plinth up` runs the same composition inline."""

import os
from pathlib import Path

import pulumi

from plinth.deployment.plain_pulumi import program

os.umask(0o077)
program(Path(__file__).parent.resolve(), pulumi.get_stack())
