"""From the log to subscribers."""
