"""What a user takes home: PEFT-compatible adapters with a sidecar."""
