"""Who connects: passwords, tokens, plugins."""
