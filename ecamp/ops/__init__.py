"""The Python face of each kernel: schema, reference, fake. Imports torch only."""
