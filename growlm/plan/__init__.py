"""FLOPs, memory, cost, layouts and growth schedules, before anything runs. No torch."""
