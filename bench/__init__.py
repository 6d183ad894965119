"""Speed and memory, as ratios against a rival in the same run. Nothing here is asserted."""
