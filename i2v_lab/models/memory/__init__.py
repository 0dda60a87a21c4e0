"""What a model holds in memory: tiers that save some, the ladder through them, and what a network takes."""
