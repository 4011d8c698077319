"""What is trained: the prompt encoder, its initial prompts, the template and the verbalizer."""
