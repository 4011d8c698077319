"""Measurements, beside stock PEFT where there is something to compare. Results with date and machine: RESULTS.md."""
