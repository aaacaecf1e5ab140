"""The load gate: real embeddings, a constant arrival rate, and one of three verdicts: pass, fail, void."""
