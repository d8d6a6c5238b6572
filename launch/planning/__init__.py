"""What a run needs and takes, found by compiling its programs for devices that need not exist."""
