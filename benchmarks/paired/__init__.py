"""Shoal against what one would use instead, in alternating rounds of one run: ``make bench``."""
