"""When growing pays: theory, the search for a schedule under a budget, its verdict, pilots. No torch."""
