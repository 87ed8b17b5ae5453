"""Evaluation: knowledge benchmarks, the IQ suite, perplexity against context."""
