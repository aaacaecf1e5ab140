"""The gateway over gRPC: `plinth.vectors.v1.VectorService`, reflection and health checks."""
