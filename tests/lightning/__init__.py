"""``ModelCheckpoint`` and ``CheckpointIO`` on the real Trainer."""
