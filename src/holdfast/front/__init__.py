"""The front door: where policy and engine meet. The integrations and the command use this alone."""
