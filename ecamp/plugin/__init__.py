"""The plugin host: finds and makes plugins."""
