"""Messages and stubs of `plinth.vectors.v1`, which a build generates from `proto/plinth/vectors/v1/vectors.proto`."""
