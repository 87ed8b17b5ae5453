"""The training loop, its optimizer, schedules, guards and record."""
