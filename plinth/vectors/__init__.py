"""The gateway's protocol, by version: what `proto/` becomes in Python."""
