"""Who may do what on the broker: its users (SCRAM), its ACLs, and the question whether one may do something."""
