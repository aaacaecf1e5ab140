"""The load gate: real embeddings, a constant arrival rate, and a verdict of three kinds: pass, fail, void."""
