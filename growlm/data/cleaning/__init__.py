"""Pure functions on texts: one spelling, quality, language, near duplicates, contamination, personal data."""
