"""Install the pulumi binary through the Automation API: `install_pulumi.py VERSION ROOT`."""

import sys

from pulumi.automation import PulumiCommand
from semver import VersionInfo

PulumiCommand.install(root=sys.argv[2], version=VersionInfo.parse(sys.argv[1]))
