"""The parts of RefQSR: clustering (ClustBlock), refinement of queries (RefER), the two-path pass."""
