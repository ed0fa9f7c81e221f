"""Experiments that show what the gateway promises; judged by ``shoal_checker``, which is apart."""
