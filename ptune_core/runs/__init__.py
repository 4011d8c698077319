"""A run from Start to finished, whatever happens between."""
