"""What the modality gap looks like, measured on arrays (arXiv 2602.07026 §3, App. D)."""
