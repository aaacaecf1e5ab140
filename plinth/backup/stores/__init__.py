"""The stores of a backup set: how each one is backed up and restored."""
