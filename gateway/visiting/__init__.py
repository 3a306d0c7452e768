"""Publishing without a session: who publishes by HTTP, and how much."""
