"""References made from the code, and what in the code lacks words. ``python -m tests.docs`` writes them."""
