"""Figures and pages: numbers in, pictures and HTML out."""
