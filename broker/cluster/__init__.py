"""What the cluster is: topics, configs, ACLs, credentials and quotas, kept as records in a log of the broker's own."""
