"""Target `docker`: every service a container on one Docker engine."""
