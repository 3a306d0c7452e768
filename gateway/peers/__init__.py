"""Who else is there: claims to client ids, presence, the lease on them, the group of gateways."""
