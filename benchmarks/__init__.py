"""Measurements of astound on real audio: how often it is right, and how fast it is."""
