"""The frozen base model, with a prompt."""
