"""Checks for plugin authors: the contract of every plugin, bad input for data sets in folders."""
