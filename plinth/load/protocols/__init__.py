"""The operations of a run over REST and gRPC: what to send, and how to parse an answer. Pure."""
