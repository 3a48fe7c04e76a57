"""Recovery from a restore of the broker's database."""
