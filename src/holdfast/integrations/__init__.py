"""A framework's events into ours: thin, through the front door only."""
