"""Parts of a run that its launchers share."""
