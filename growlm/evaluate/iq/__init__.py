"""The IQ suite: tasks that cannot be solved by having read the answers (arXiv:2309.03852, section 5)."""
