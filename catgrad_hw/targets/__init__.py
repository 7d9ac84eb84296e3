"""What the levels are written out as."""
