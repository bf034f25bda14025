"""The instruments with which holdfast's promises are tested, for use on any saver of checkpoints."""
