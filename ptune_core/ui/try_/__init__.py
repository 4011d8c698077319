"""The Try tab."""
