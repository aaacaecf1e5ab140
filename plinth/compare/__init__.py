"""Side by side with other vector stores: the same data, the same recall, one machine, one run (`make compare`)."""
