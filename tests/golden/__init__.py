"""Checks of a golden folder (vectors recorded from the published code) against our published paths."""
