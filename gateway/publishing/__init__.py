"""From PUBLISH to the log."""
