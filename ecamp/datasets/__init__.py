"""Data sets: the phantom, a user's folder, and one file per public set."""
