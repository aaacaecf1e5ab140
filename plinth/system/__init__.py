"""The operating system: files, processes, ports, TLS, HTTP clients. It knows nothing of Qdrant."""
