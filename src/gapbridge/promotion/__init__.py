"""Which registered model is in use, and why: comparison with the champion, gates, a numbered record a decision."""
