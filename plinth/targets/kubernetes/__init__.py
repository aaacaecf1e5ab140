"""Target `kubernetes`: every service a Helm release in one namespace."""
