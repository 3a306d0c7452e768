"""What the gateway writes to the log and reads from it: ticks, transactions, tails, state topics, their local copy."""
