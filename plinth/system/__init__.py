"""The operating system: files, processes, ports, TLS, HTTP clients. Free of Qdrant."""
