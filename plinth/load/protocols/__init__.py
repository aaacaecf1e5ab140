"""The operations of a run on the wire: REST and gRPC. Pure: what to send, and what an answer says."""
