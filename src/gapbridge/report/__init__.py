"""What came out, for people: one page, a model card, and the short table that a run ends with."""
