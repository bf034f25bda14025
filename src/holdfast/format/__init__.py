"""How bytes are laid out in a checkpoint file: torch's zip, and one more record, the manifest.

Nothing here knows torch: a file can be listed, shown and verified without importing it.
"""
