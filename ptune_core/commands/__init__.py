"""The command line's commands. Each module declares its own and imports what they need when they run."""
