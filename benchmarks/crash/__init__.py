"""What a kill at every system call and a flipped bit do to the checkpoints of holdfast and its peers."""
