"""Classify and chat in a process of their own."""
