"""The programs of services: what is run, and where its executable is."""
