"""Part of the product: what tests of GrowLM, and of things built on it, need to provoke failures."""
