"""Memory, time and cost of a run, from its programs compiled for devices that need not exist."""
