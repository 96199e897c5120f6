"""Command lines: thin layers over what the package does."""
