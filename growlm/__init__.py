"""GrowLM: pre-train language models cheaply by growing them."""

__version__ = "0.1.0"
