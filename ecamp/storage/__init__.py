"""Storage: crash-safe files, locks, cache entries, arrays on disk."""
