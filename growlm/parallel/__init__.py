"""What makes several processes one run: ranks, their layout, their collectives."""
