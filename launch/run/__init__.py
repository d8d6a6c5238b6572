"""The parts of a run that its launchers share."""
