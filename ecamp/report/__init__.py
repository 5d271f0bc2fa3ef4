"""Reports: results as rows, tables and HTML pages. Imports no torch."""
