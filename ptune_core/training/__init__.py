"""Settings, the training loop, metrics and checkpoints."""
