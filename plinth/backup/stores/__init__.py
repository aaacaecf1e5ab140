"""The stores that a backup set holds: for each, how it is saved and how it is restored."""
