"""Problems, demonstrations of how to solve them, and verifiers of answers."""
