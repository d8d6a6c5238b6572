"""Problems, and demonstrations of how to solve them."""
