"""What the program can do for people, without gradio and without torch: page, API and command line stand on it."""
