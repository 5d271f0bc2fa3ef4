"""A small complete plugin package for ecamp."""
