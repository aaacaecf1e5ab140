"""One environment's deployment: checks, the Pulumi program, its stack and its outputs."""
