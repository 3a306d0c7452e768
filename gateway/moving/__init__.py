"""Sessions and share groups that move between gateways or come back after a restart."""
