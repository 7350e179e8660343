"""Commands about block logs."""
