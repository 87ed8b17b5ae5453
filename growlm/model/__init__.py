"""The decoder, and the one table that says what its parameters are."""
