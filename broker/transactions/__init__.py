"""Transaction coordination: producer ids, fencing, two-phase commit over one journal."""
