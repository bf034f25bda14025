"""States of which each rank has a part: saved by all of them into one checkpoint, and read by any number."""
