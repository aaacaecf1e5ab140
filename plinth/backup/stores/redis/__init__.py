"""Redis in a backup set."""
