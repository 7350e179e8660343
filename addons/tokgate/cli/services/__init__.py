"""`tokgate service`: services as the policy and the catalogue define them, and lists to make them from."""
