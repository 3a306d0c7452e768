"""Sessions that outlive their connections, and what waits in them."""
