"""Retinal data sets for ecamp, in colour."""
