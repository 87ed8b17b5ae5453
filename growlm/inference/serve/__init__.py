"""`growlm serve`: an OpenAI-compatible completions endpoint for one model on this machine."""
