"""Images on disk, Google Maps, the synthetic tiles, and downloading with verification."""
