"""The demo: a dozen conversations through the whole path, and beside each what its code costs without us."""
