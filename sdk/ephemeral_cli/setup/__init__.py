"""What a machine needs before a sandbox can start: runsc, a root filesystem, the base environment."""
