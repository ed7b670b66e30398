"""What the kernel shows about each instance: claim, observation, verdict."""
