"""Compare Qdrant with other vector stores: the same data, recall, machine and run (`make compare`)."""
