"""Target `local`: every service a process on this machine; what finds programs needs no Pulumi."""
