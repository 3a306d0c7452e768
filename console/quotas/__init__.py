"""Quotas: how much of the broker a user, a client or an address may use."""
