"""Models that answer: log-likelihoods and continuations of texts, from any source."""
