"""The credit laboratory: methods in small worlds where the true gradient of success is known."""
