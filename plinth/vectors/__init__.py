"""The gateway's protocol, by version: the Python modules that are generated from `proto/`."""
