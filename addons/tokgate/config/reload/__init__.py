"""Reading a policy again while tokgate runs."""
