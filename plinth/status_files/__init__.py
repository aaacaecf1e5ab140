"""Files that one program of Plinth writes and another reads."""
