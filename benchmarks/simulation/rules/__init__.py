"""What may happen next in a history, a file for each who does it."""
