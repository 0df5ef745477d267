"""`ephemeral bench`: each room measures itself in a process of its own; here is what it says."""
