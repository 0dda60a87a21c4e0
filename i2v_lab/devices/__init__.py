"""What the device is, what a run used of it, and whose turn it is."""
