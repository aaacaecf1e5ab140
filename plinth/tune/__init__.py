"""Which settings serve a collection's own vectors best: `plinth tune`."""
