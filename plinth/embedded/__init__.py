"""The embedded engine: the part of Qdrant's REST API that a laptop, CI and a demo need, over qdrant-edge.

The wheel holds the interpreter's lock while it works, so a front process speaks HTTP and one engine process for each
collection owns its shard, one request after another. Building a graph happens in a child of that process on a copy of
the shard, so that searches go on meanwhile.
"""

ENGINE = "plinth embedded engine (qdrant-edge 0.9.0)"
VERSION = "1.18.3"
"""The version of Qdrant's API that is spoken."""
